/** A plan says what is sent when: made once, then replayed against any number of servers, so that all get
 * identical arrivals and lengths. As JSONL: one header line, then one request a line. */
import { z } from "zod"
import { UserError } from "../errors.ts"
import { readText } from "./trace.ts"

const tokens = z.int().min(1).max(1e7)

const roundSchema = z.strictObject({
  /** SLO class that judges this round. */
  class: z.string().min(1),
  /** Tokens added to the session's history by this round (the whole prompt in the first round). */
  promptTokens: tokens,
  outputTokens: tokens,
  /** The first so many output tokens are thinking. */
  thinkingTokens: z.int().min(0).default(0),
  /** Sent so long after the previous round's answer has ended (first round: 0). */
  delayMs: z.number().min(0).default(0),
})

const requestSchema = z.strictObject({
  /** Since the start of the replay. */
  atMs: z.number().min(0),
  app: z.string().min(1),
  /** Key of a session, or null for a single request. */
  session: z.string().nullable().default(null),
  rounds: z.array(roundSchema).min(1),
  /** What the first round's prompt begins with: blocks by name. Where two requests of the plan have the same id,
   * their prompts are equal up to the end of that block (or of the shorter prompt). Block k ends at token
   * floor((k + 1) · blockTokens): divided by --scale, blocks may be fractions. */
  prefix: z
    .strictObject({ blockTokens: z.number().positive().max(1e7), ids: z.array(z.int().min(0)).min(1) })
    .optional(),
})

const headerSchema = z.strictObject({
  plan: z.literal(1),
  scenario: z.string(),
  seed: z.number(),
  /** Requests (sessions count once) per second. */
  ratePerSec: z.number().positive(),
  /** Span of the arrivals. */
  durationMs: z.number().positive(),
  scale: z.number().positive(),
  arrivals: z.string(),
  burstiness: z.number().nullable().default(null),
  /** Where each app's lengths come from, and its arrivals where they follow a trace. */
  sources: z.record(z.string(), z.string()),
})

export type PlannedRound = z.output<typeof roundSchema>
export type PlannedRequest = z.output<typeof requestSchema>
export type PlanHeader = z.output<typeof headerSchema>
export interface Plan {
  header: PlanHeader
  requests: PlannedRequest[]
}

/** Names of the SLO classes that the plan's rounds are judged by. */
export function classesIn(plan: Plan): string[] {
  return [...new Set(plan.requests.flatMap(({ rounds }) => rounds.map((round) => round.class)))]
}

export function formatPlan(plan: Plan): string {
  return [plan.header, ...plan.requests].map((line) => `${JSON.stringify(line)}\n`).join("")
}

export function readPlan(path: string): Plan {
  return parsePlan(readText(path), path)
}

/** `name` is what error messages call the file. */
export function parsePlan(text: string, name: string): Plan {
  const lines = text.split(/\r?\n/)
  const parsed = <T>(schema: z.ZodType<T>, index: number): T => {
    const where = `${name}:${index + 1}`
    let value: unknown
    try {
      value = JSON.parse(lines[index]!)
    } catch {
      throw new UserError(`${where}: not JSON; delete the line or make the plan anew with --save-plan`)
    }
    const result = schema.safeParse(value)
    if (result.success) return result.data
    const issue = result.error.issues[0]!
    throw new UserError(
      `${where}: ${issue.path.join(".") || "line"}: ${issue.message}; mend the line or make the plan anew with --save-plan`,
    )
  }
  const plan: Plan = { header: parsed(headerSchema, 0), requests: [] }
  const places = new Map<number, string>()
  for (let i = 1; i < lines.length; i++) {
    if (lines[i]!.trim() === "") continue
    const request = parsed(requestSchema, i)
    if (request.rounds.some((round) => round.thinkingTokens > round.outputTokens)) {
      throw new UserError(`${name}:${i + 1}: thinkingTokens is more than outputTokens; mend the line`)
    }
    checkPrefix(request, places, `${name}:${i + 1}`)
    plan.requests.push(request)
  }
  if (plan.requests.length === 0) throw new UserError(`${name}: the plan has no requests`)
  plan.requests.sort((a, b) => a.atMs - b.atMs)
  return plan
}

/** `places`: block length and block before of every id so far. Prompts that hold the same id must be equal up to there. */
function checkPrefix({ prefix, rounds }: PlannedRequest, places: Map<number, string>, where: string): void {
  if (prefix === undefined) return
  const { blockTokens, ids } = prefix
  if ((ids.length - 1) * blockTokens >= rounds[0]!.promptTokens)
    throw new UserError(`${where}: prefix is longer than the first round's prompt; mend the line`)
  for (const [k, id] of ids.entries()) {
    const place = `${blockTokens} ${ids[k - 1] ?? ""}`
    if ((places.get(id) ?? place) !== place) {
      throw new UserError(
        `${where}: prefix block ${id} stands after another block, or is of another length, than in an earlier line; ` +
          "give it an id of its own",
      )
    }
    places.set(id, place)
  }
}
