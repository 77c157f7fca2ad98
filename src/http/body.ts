/** Bodies: bytes to JSON to a validated request, with errors that name the field. */
import type { FastifyInstance } from "fastify"
import type { z } from "zod"
import { UserError, userError } from "../errors.ts"

/** Fastify's own JSON parser replaces bad UTF-8 silently; a prompt must not change on its way. */
export function registerJsonParser(app: FastifyInstance): void {
  app.removeAllContentTypeParsers()
  app.addContentTypeParser("application/json", { parseAs: "buffer" }, (_request, body, done) => {
    try {
      done(null, parseJson(body as Buffer))
    } catch (error) {
      done(error as Error)
    }
  })
}

function parseJson(body: Uint8Array): unknown {
  let text: string
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(body)
  } catch (error) {
    throw userError("invalid_utf8", {}, { cause: error })
  }
  try {
    return JSON.parse(text)
  } catch (error) {
    const detail = text.trim() === "" ? "it is empty" : (error as Error).message
    throw userError("invalid_json", { detail }, { cause: error })
  }
}

/** Throws a 400 whose `param` is the first wrong field. */
export function validate<T>(schema: z.ZodType<T>, body: unknown): T {
  const parsed = schema.safeParse(body ?? {})
  if (parsed.success) return parsed.data
  const issue = parsed.error.issues[0]!
  const path = issue.code === "unrecognized_keys" ? [...issue.path, issue.keys[0]!] : issue.path
  const param = path.reduce<string>((to, key) => {
    return typeof key === "number" ? `${to}[${key}]` : to === "" ? String(key) : `${to}.${String(key)}`
  }, "")
  if (param === "") throw userError("invalid_json", { detail: "the body is not a JSON object" })
  const missing = issue.code === "invalid_type" && /received undefined$/.test(issue.message)
  const cause = issue.code === "invalid_key" ? (issue.issues[0] ?? issue) : issue
  const told = missing ? "is required" : lowerFirst(cause.message)
  const message = issue.code === "unrecognized_keys" ? "is not a known field" : told
  throw new UserError(`Invalid '${param}': ${message}.`, { code: "invalid_value", param })
}

function lowerFirst(text: string): string {
  return text.charAt(0).toLowerCase() + text.slice(1)
}
