/** Bodies: bytes to JSON to a validated request, with errors that name the field. */
import type { Readable } from "node:stream"
import { setImmediate } from "node:timers/promises"
import type { FastifyInstance, FastifyRequest } from "fastify"
import type { z } from "zod"
import { UserError, userError } from "../errors.ts"
import type { ServiceHost } from "../serve/service.ts"
import { SharedBound } from "../serve/shared-bound.ts"
import { mayDiffer, parseExactly } from "../text/constraint/exact-json.ts"
import { decoded } from "./body-encoding.ts"
import { readBody } from "./body-reader.ts"

/** Fastify's own JSON parser replaces bad UTF-8 silently; a prompt must not change on its way. `bodyMemory`: see ServerOptions. */
export function registerJsonParser(
  app: FastifyInstance,
  { live, bodyMemory }: { live: { readonly bodyLimit: number }; bodyMemory: number },
  host: ServiceHost,
): void {
  const bound = new SharedBound(bodyMemory, bodyMemory, host.tenants.shareOf)
  app.removeAllContentTypeParsers()
  app.addContentTypeParser("application/json", async (request: FastifyRequest, payload: Readable) => {
    const sentBytes = Number(request.headers["content-length"])
    if (sentBytes > live.bodyLimit) throw userError("body_too_large", { limit: live.bodyLimit })
    const encoded = decoded(payload, request.headers["content-encoding"])
    const contentLength = encoded === null ? sentBytes : Number.NaN
    const { number } = host.tenant(request.tenant)
    const memory = {
      take: (bytes: number) => bound.take(bytes, number),
      give: (bytes: number) => bound.give(bytes, number),
    }
    const sizes = host.service?.promptSizes ?? null
    const options = {
      bodyLimit: live.bodyLimit,
      contentLength,
      memory,
      sizes,
      ...(encoded !== null && { stop: encoded.stop }),
    }
    return readBody(encoded?.stream ?? payload, options, (body) => {
      // OpenAI's client for Python says of these requests, too, that their body is JSON; they have none.
      if (body.length === 0 && request.method === "DELETE") return undefined
      return body.length <= SMALL_BYTES ? parseJson(body) : inTurn(() => parseJson(body))
    })
  })
}

/** Parsed in a millisecond. */
const SMALL_BYTES = 64 * 1024
let last: Promise<unknown> = Promise.resolve()

/** One large body after the other, each in a round of the event loop of its own: streams go on between them. */
function inTurn<T>(parse: () => T): Promise<T> {
  const turn = last.then(() => setImmediate()).then(parse)
  last = turn.catch(() => {})
  return turn
}

const decoder = new TextDecoder("utf-8", { fatal: true })

function parseJson(body: Uint8Array): unknown {
  let text: string
  try {
    text = decoder.decode(body)
  } catch (error) {
    throw userError("invalid_utf8", {}, { cause: error })
  }
  try {
    const parsed: unknown = JSON.parse(text)
    if (typeof parsed === "object" && parsed !== null && mayDiffer(text)) sources.set(parsed, text)
    return parsed
  } catch (error) {
    const detail = text.trim() === "" ? "it is empty" : (error as Error).message
    throw userError("invalid_json", { detail }, { cause: error })
  }
}

/** Texts of bodies that say more than JavaScript's objects hold. */
const sources = new WeakMap<object, string>()

/** A body as it was written: with whole numbers of any length, and names in their order. */
export function exactBody(body: unknown): Readonly<Record<string, unknown>> {
  const source = sources.get(body as object)
  return (source === undefined ? body : parseExactly(source)) as Readonly<Record<string, unknown>>
}

/** The validator itself throws at an object with a `length` that is no number: it takes it for a list. */
function parse<T>(schema: z.ZodType<T>, body: unknown) {
  try {
    return schema.safeParse(body)
  } catch (error) {
    if (!(error instanceof TypeError && /primitive value/.test(error.message))) throw error
    throw userError(
      "invalid_json",
      { detail: "a field named length stands where a list is expected" },
      { cause: error },
    )
  }
}

/** Throws a 400 whose `param` is the first wrong field. */
export function validate<T>(schema: z.ZodType<T>, body: unknown): T {
  const parsed = parse(schema, body ?? {})
  if (parsed.success) return parsed.data
  const issue = parsed.error.issues[0]!
  const path = issue.code === "unrecognized_keys" ? [...issue.path, issue.keys[0]!] : issue.path
  const param = path.reduce<string>((to, key) => {
    return typeof key === "number" ? `${to}[${key}]` : to === "" ? told(key) : `${to}.${told(key)}`
  }, "")
  if (param === "") throw userError("invalid_json", { detail: "the body is not a JSON object" })
  const missing = issue.code === "invalid_type" && /received undefined$/.test(issue.message)
  const cause = issue.code === "invalid_key" ? (issue.issues[0] ?? issue) : issue
  const why = missing ? "is required" : lowerFirst(cause.message)
  const message = issue.code === "unrecognized_keys" ? "is not a known field" : why
  throw new UserError(`Invalid '${param}': ${message}.`, { code: "invalid_value", param })
}

/** A name that a client chose, in an error. */
function told(key: PropertyKey): string {
  return String(key).slice(0, 100)
}

function lowerFirst(text: string): string {
  return text.charAt(0).toLowerCase() + text.slice(1)
}
