/** What a request asks of the fleet, as far as its headers and its body tell. */
import type { SloClass, SloClasses } from "../../config/slo-classes.ts"
import { TENANT_NAME } from "../../config/tenants.ts"
import { userError } from "../../errors.ts"
import { readSloArgs, SLO_ARGS_FIELD, type SloArgs } from "../../serve/slo-args.ts"
import {
  OBJECTIVE_HEADER,
  type ResolvedSlo,
  resolveSlo,
  type ServiceTier,
  type SloBody,
} from "../../serve/slo-resolve.ts"
import { FAIRNESS_HEADERS } from "../../serve/tenants.ts"
import { type Fields, readFields } from "./body.ts"

/** Lower-case names; of a header that comes twice the first. */
export type Headers = Readonly<Record<string, string>>

export interface Ask {
  /** Without its query. */
  path: string
  model: string
  slo: ResolvedSlo
  /** Its fairness id, or the default's. */
  tenant: string
  /** Client's name of its tool session, or null. */
  session: string | null
  /** Of the prompt, by the length of the body: no tokenizer is here. */
  promptTokens: number
  /** Most tokens of its answers, or null. */
  maxTokens: number | null
  /** When it came, µs on the picker's clock. */
  arrivalUs: number
  /** Its answer is sent here as well, chunk by chunk. */
  followed: boolean
  /** null: its body was not read. */
  fields: Fields | null
  bytes: number
}

export const DEFAULT_FLOW = "default-flow"

/** API paths whose requests are answered token by token, whatever stands before them. */
const GENERATES = /\/v1\/(chat\/completions|completions|responses|messages)$/
/** Of English text and JSON; what sees usage learns better. */
const BYTES_PER_TOKEN = 4
const SERVICE_TIERS: readonly unknown[] = ["auto", "default", "flex", "priority"]

export function pathOf(headers: Headers): string {
  return (headers[":path"] ?? "").split("?", 1)[0]!
}

/** Whether it asks for tokens, and its body can be read: other requests go to any endpoint as they are. */
export function generates(headers: Headers): boolean {
  const encoding = headers["content-encoding"] ?? "identity"
  return headers[":method"] === "POST" && GENERATES.test(pathOf(headers)) && encoding === "identity"
}

/** Throws UserError where the body or an objective cannot be read. `body` null: it is not sent here. */
export function readAsk(
  headers: Headers,
  body: Buffer | null,
  classes: SloClasses,
  { arrivalUs, followed }: Pick<Ask, "arrivalUs" | "followed">,
): Ask {
  const fields = body === null ? null : readFields(body)
  const { model, slo } = fields ?? {}
  if (slo !== undefined && slo !== null && (typeof slo !== "object" || Array.isArray(slo)))
    throw userError("invalid_value", { message: "'slo' must be an object." }, { param: "slo" })
  const args = argsOf(fields)
  const bytes = body?.length ?? sizeIn(headers)
  return {
    ...{ path: pathOf(headers), arrivalUs, followed, fields, bytes },
    model: typeof model === "string" ? model : "",
    slo: resolveSlo(classes, {
      ...{ slo: slo as SloBody | null | undefined, args },
      serviceTier: tierOf(fields),
      headers: objectiveHeaders(headers, classes),
      modelClass: classOf(model, classes),
    }),
    tenant: flowOf(headers),
    session: sessionOf(slo) ?? args?.slo_session ?? null,
    promptTokens: Math.max(1, Math.ceil(bytes / BYTES_PER_TOKEN)),
    maxTokens: mostTokens(fields),
  }
}

/** What a client says in vLLM's extra arguments. The tenant there is not its to say, and the header tells it. */
function argsOf(fields: Fields | null): SloArgs | null {
  const given = fields?.[SLO_ARGS_FIELD]
  return typeof given === "object" && given !== null ? readSloArgs(given as Fields) : null
}

/** Without an objective of llm-d's that names no class: other gateways' objectives are priorities, and a request with an
 * unknown one is served. */
function objectiveHeaders(headers: Headers, classes: SloClasses): Headers {
  const { [OBJECTIVE_HEADER]: name, ...rest } = headers
  return name === undefined || classes.byName.has(name) ? headers : rest
}

/** The tenant that the gateway names; a name that would not be one of ours is the default's. */
function flowOf(headers: Headers): string {
  const name = first(headers, FAIRNESS_HEADERS)
  return name !== undefined && TENANT_NAME.test(name) ? name : DEFAULT_FLOW
}

function first(headers: Headers, names: readonly string[]): string | undefined {
  for (const name of names) if (headers[name] !== undefined && headers[name] !== "") return headers[name]
  return undefined
}

function sessionOf(slo: unknown): string | null {
  const session = (slo as SloBody | null | undefined)?.session
  return typeof session === "string" ? session : null
}

function classOf(model: unknown, classes: SloClasses): SloClass | null {
  return typeof model === "string" ? (classes.byAlias.get(model) ?? null) : null
}

function tierOf(fields: Fields | null): ServiceTier | null {
  const tier = fields?.service_tier
  return SERVICE_TIERS.includes(tier) ? (tier as ServiceTier) : null
}

function mostTokens(fields: Fields | null): number | null {
  for (const name of ["max_completion_tokens", "max_tokens", "max_output_tokens"]) {
    const value = fields?.[name]
    if (typeof value === "number" && Number.isInteger(value) && value > 0) return value
  }
  return null
}

function sizeIn(headers: Headers): number {
  const size = Number(headers["content-length"])
  return Number.isFinite(size) && size > 0 ? size : 1
}
