/** The server's API as an OpenAPI document: what this server has, as it is configured now. */
import { ERRORS, type ErrorCode } from "../../errors.ts"
import type { Protected } from "../protectable.ts"
import { anthropicError, error } from "./answers/common.ts"
import { componentSchemas, NAMES } from "./components.ts"
import { OF_ALL, OF_KEYS, OF_LIMITED_KEYS } from "./errors.ts"
import { jsonSchemaOf } from "./json-schema.ts"
import { type Needs, type Operation, type Parameter, TAGS } from "./operation.ts"
import { OPERATIONS } from "./operations.ts"

/** What the document depends on. */
export interface Described {
  version: string
  /** What this server has. */
  has: ReadonlySet<Needs>
  /** Tenants have keys; and each request of the API must have one. */
  hasKeys: boolean
  needsKey: boolean
  /** Parts outside the API that want a key. */
  protect: readonly Protected[]
}

const ABOUT =
  "OpenAI's and Anthropic's API, with latency objectives: what a request wants is in the body's `slo` or in headers, how it " +
  "went in `metrics`. Fields that are not listed here and would change nothing are ignored. Engines of other kinds behind a " +
  "gateway may refuse more than this says."

export async function openapiDocument(described: Described): Promise<object> {
  const { version, has, hasKeys } = described
  const operations = OPERATIONS.filter(({ needs }) => needs === undefined || has.has(needs))
  const paths: Record<string, Record<string, object>> = {}
  for (const operation of operations) {
    const path = (paths[operation.path] ??= {})
    path[operation.method] = operationJson(operation, described)
  }
  const used = new Map(operations.flatMap(({ parameters = [] }) => parameters.filter(isShared).map(named)))
  return {
    openapi: "3.1.1",
    info: {
      ...{ title: "SLOs-Serve", version, description: ABOUT },
      license: { name: "Apache-2.0", identifier: "Apache-2.0" },
    },
    servers: [{ url: "/", description: "The server that this document comes from" }],
    tags: Object.entries(TAGS).map(([name, description]) => ({ name, description })),
    paths,
    components: {
      schemas: await componentSchemas(),
      parameters: Object.fromEntries([...used].map(([name, one]) => [name, parameterJson(one)])),
      headers: HEADERS,
      ...(hasKeys && { securitySchemes: SECURITY_SCHEMES }),
    },
  }
}

const SECURITY_SCHEMES = {
  bearer: { type: "http", scheme: "bearer", description: "The tenant's key, as OpenAI's clients send it." },
  apiKey: {
    ...{ type: "apiKey", in: "header", name: "x-api-key" },
    description: "The tenant's key, as Anthropic's clients send it.",
  },
}

const HEADERS = {
  "x-request-id": { description: "The request's id.", schema: { type: "string" } },
  "retry-after": { description: "When to come back, in seconds.", schema: { type: "integer" } },
  "retry-after-ms": { description: "When to come back, in milliseconds.", schema: { type: "integer" } },
  "x-llm-d-request-dropped-reason": { description: "The error's code.", schema: { type: "string" } },
  "x-should-retry": { description: "`false`: it would be refused again.", schema: { const: "false" } },
  "www-authenticate": { description: "How keys are sent.", schema: { const: "Bearer" } },
  "accept-encoding": { description: "Encodings that bodies may have.", schema: { type: "string" } },
}
const headers = (...names: (keyof typeof HEADERS)[]) =>
  Object.fromEntries(names.map((name) => [name, { $ref: `#/components/headers/${name}` }]))

function operationJson(operation: Operation, described: Described): object {
  const { id, tag, summary, description, parameters = [], body, answers } = operation
  return {
    operationId: id,
    tags: [tag],
    summary,
    ...(description !== undefined && { description }),
    ...(parameters.length > 0 && { parameters: parameters.map(parameterOrReference) }),
    ...(body !== undefined && {
      requestBody: {
        required: true,
        content: {
          "application/json": { schema: jsonSchemaOf(body.schema, NAMES), examples: body.examples },
        },
      },
    }),
    responses: {
      200: {
        description: summary,
        headers: headers("x-request-id"),
        content: Object.fromEntries(
          Object.entries(answers).map(([type, schema]) => [type, { schema: jsonSchemaOf(schema, NAMES) }]),
        ),
      },
      ...errorsJson(operation, described),
    },
    ...securityOf(operation, described),
  }
}

/** Where no part of the server wants keys nothing is said of them. */
function securityOf({ key }: Operation, { hasKeys, needsKey, protect }: Described): object {
  if (!hasKeys) return {}
  const schemes = [{ bearer: [] }, { apiKey: [] }]
  if (key === "api") return { security: needsKey ? schemes : [...schemes, {}] }
  return { security: key !== "none" && protect.includes(key) ? schemes : [] }
}

function errorsJson(operation: Operation, { hasKeys, protect }: Described): Record<string, object> {
  const { errors, anthropic = false, key } = operation
  const wantsKey = hasKeys && (key === "api" || (key !== "none" && protect.includes(key)))
  const codes = [...OF_ALL, ...(wantsKey ? OF_KEYS : []), ...errors].filter(
    (code) => hasKeys || !OF_LIMITED_KEYS.includes(code),
  )
  const byStatus = Map.groupBy(new Set(codes), (code) => ERRORS[code].status)
  const schema = jsonSchemaOf(anthropic ? anthropicError : error, NAMES)
  return Object.fromEntries(
    [...byStatus].map(([status, of]) => [
      String(status),
      {
        description: of.map((code) => `\`${code}\`: ${told(code)}`).join("\n\n"),
        headers: headersOf(status, of),
        content: { "application/json": { schema } },
      },
    ]),
  )
}

/** What is filled in is only a name here. */
function told(code: ErrorCode): string {
  const { message, remedy } = ERRORS[code]
  const text = message === "{message}" ? "The message says what is wrong, and where." : message
  return [text, remedy].filter((part) => part !== "").join(" ")
}

function headersOf(status: number, codes: readonly ErrorCode[]): object {
  if (status === 401) return headers("x-request-id", "www-authenticate")
  if (status === 415) return headers("x-request-id", "accept-encoding")
  if (status !== 429 && status !== 503) return headers("x-request-id")
  const retry = ["x-request-id", "retry-after", "retry-after-ms", "x-llm-d-request-dropped-reason"] as const
  const never = codes.includes("queue_too_small") || codes.includes("token_limit_too_small")
  return headers(...retry, ...(never ? (["x-should-retry"] as const) : []))
}

/** Headers stand once in the document. */
const isShared = (parameter: Parameter) => parameter.in === "header"
const named = (parameter: Parameter): [string, Parameter] => [parameter.name, parameter]

function parameterOrReference(parameter: Parameter): object {
  return isShared(parameter)
    ? { $ref: `#/components/parameters/${parameter.name}` }
    : parameterJson(parameter)
}

function parameterJson({ schema, required = false, ...rest }: Parameter): object {
  return { ...rest, required, schema: jsonSchemaOf(schema, NAMES) }
}
