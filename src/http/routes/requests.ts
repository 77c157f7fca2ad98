/** GET /v1/slo/requests and /v1/slo/requests/:id: how the last answers went, and why. */
import type { FastifyInstance, FastifyRequest } from "fastify"
import { UserError, userError } from "../../errors.ts"
import type { Asked } from "../../explain/journal.ts"
import { type AnswerJson, answerJson } from "../../explain/json.ts"
import type { Service } from "../../serve/service.ts"
import { askingAll, type Siblings } from "../../siblings/siblings.ts"

const USUAL = 100
const MOST = 1000

/** `tenantOf`: the one whose requests alone a client may see; null: all. */
export function requestRoutes(
  app: FastifyInstance,
  ready: () => Service,
  tenantOf: (request: FastifyRequest) => string | null,
  siblings: Siblings | null,
): void {
  const recent = askingAll(siblings, "recent answers", (asked: Asked): Found => {
    const { journal } = ready().explainer
    return { answers: journal.recent(asked).map(answerJson), kept: journal.size }
  })
  const ofRequest = askingAll(siblings, "answers of a request", ({ id, tenant }: OfRequest): Found => {
    const { journal } = ready().explainer
    return { answers: journal.find(id, tenant).map(answerJson), kept: journal.size }
  })

  app.get<{ Querystring: Record<string, string> }>("/v1/slo/requests", async (request, reply) => {
    ready()
    const asked = { ...askedBy(request.query), tenant: tenantOf(request) }
    const { answers, kept } = together(await recent(asked), "last first")
    return reply.header("cache-control", "no-store").send({ requests: answers.slice(0, asked.most), kept })
  })

  app.get<{ Params: { id: string } }>("/v1/slo/requests/:id", async (request, reply) => {
    ready()
    const { id } = request.params
    const { answers, kept } = together(await ofRequest({ id, tenant: tenantOf(request) }), "first first")
    if (answers.length === 0) throw userError("request_not_found", { id: id.slice(0, 150), kept })
    return reply.header("cache-control", "no-store").send({ id: answers[0]!.id, answers })
  })
}

interface OfRequest {
  id: string
  tenant: string | null
}

interface Found {
  answers: AnswerJson[]
  /** Of how many. */
  kept: number
}

/** Each tells them in that order. */
function together(all: readonly Found[], order: "first first" | "last first"): Found {
  const answers = all.flatMap((one) => one.answers)
  const sign = order === "first first" ? 1 : -1
  const byEnd = (a: AnswerJson, b: AnswerJson) => sign * (Date.parse(a.ended_at) - Date.parse(b.ended_at))
  return {
    answers: all.length === 1 ? answers : answers.sort(byEnd),
    kept: all.reduce((sum, { kept }) => sum + kept, 0),
  }
}

const KNOWN = ["missed", "limit", "since"]

function askedBy(query: Readonly<Record<string, string | string[]>>) {
  for (const name of Object.keys(query)) if (!KNOWN.includes(name)) throw wrong(name, "it is not known here")
  const { missed, limit, since } = query
  return {
    missed: missed !== undefined && readFlag(missed),
    most: limit === undefined ? USUAL : readLimit(String(limit)),
    ...(since !== undefined && { sinceMs: readTime(String(since)) }),
  }
}

function readFlag(value: string | string[]): boolean {
  if (value === "" || value === "1" || value === "true") return true
  if (value === "0" || value === "false") return false
  throw wrong("missed", "say nothing after it, or true or false")
}

function readLimit(value: string): number {
  const limit = Number(value)
  if (/^\d+$/.test(value) && limit >= 1 && limit <= MOST) return limit
  throw wrong("limit", `it must be a whole number of 1 to ${MOST}`)
}

/** Unix time in seconds, or a date as JSON has it. */
function readTime(value: string): number {
  const ms = /^\d+(\.\d+)?$/.test(value) ? Number(value) * 1000 : Date.parse(value)
  if (Number.isFinite(ms)) return ms
  throw wrong("since", "it must be a time: seconds since 1970, or like 2025-01-31T12:00:00Z")
}

function wrong(name: string, why: string): UserError {
  return new UserError(`Invalid '${name}': ${why}.`, { code: "invalid_value", param: name })
}
