/** Admission instances as JSON lines: what a planner is asked, with the batch-time formula that holds there.
 * Times in seconds, memory in KV blocks; see FORMAT.md of the oracle and docs. */
import { z } from "zod"
import { UserError } from "../errors.ts"

const number = z.number()
const count = z.number().int().nonnegative()
/** More than any model's context; sums over all requests stay exact, and KV is counted block by block. */
const tokens = count.max(1e7)
/** A batch must take time: the planner's clock counts whole microseconds. */
const LEAST_BATCH_S = 1e-6

const requestSchema = z.object({
  id: count,
  new: z.boolean(),
  tier: count,
  ddl: number,
  remaining: tokens,
  prompt: tokens,
  computed: tokens,
  max_tokens: tokens,
  profit: number,
  mem: number.nonnegative(),
})

const schema = z
  .object({
    id: z.union([z.string(), z.number()]),
    family: z.string().default(""),
    now: number,
    tpots: z.array(number.positive()).min(1),
    hw: z.array(number.nonnegative()).min(3),
    hw_terms: z.union([z.literal(3), z.literal(5)]),
    spec: z.object({ alpha: number.gt(0).lt(1), max_sd: count.min(1).max(64) }),
    block_size: count.min(1),
    mem_free: number.nonnegative(),
    requests: z.array(requestSchema),
  })
  .superRefine((value, context) => {
    const fail = (path: PropertyKey[], message: string) => context.addIssue({ code: "custom", path, message })
    if (value.hw.length % value.hw_terms !== 0)
      fail(["hw"], `needs a multiple of hw_terms = ${value.hw_terms} numbers`)
    else if (batchSeconds(value, { tokens: 1, steps: 1, requests: 1, pastTokens: 0 }) < LEAST_BATCH_S)
      fail(["hw"], "a batch of one token must take a microsecond at least; times are in seconds")
    for (let i = 1; i < value.tpots.length; i++)
      if (value.tpots[i]! < value.tpots[i - 1]!) fail(["tpots", i], "must not be below the one before")
    const seen = new Set<number>()
    value.requests.forEach((request, i) => {
      if (request.tier >= value.tpots.length)
        fail(["requests", i, "tier"], `must be below ${value.tpots.length}, the number of tpots`)
      if (seen.has(request.id)) fail(["requests", i, "id"], "is used twice")
      seen.add(request.id)
      if (request.remaining > request.prompt)
        fail(["requests", i, "remaining"], `must not be above prompt, which is ${request.prompt}`)
    })
  })

export type Instance = z.infer<typeof schema>
export type InstanceRequest = Instance["requests"][number]

/** One line of an instance file. `source` and `line` name it in the message. */
export function readInstance(text: string, source: string, line: number): Instance {
  const where = `${source}, line ${line}`
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    const detail = error instanceof Error ? error.message : String(error)
    throw new UserError(`${where}: not JSON (${detail}); every line must be one instance as a JSON object`)
  }
  const result = schema.safeParse(value)
  if (result.success) return result.data
  const issue = result.error.issues[0]!
  const field = issue.path.length > 0 ? issue.path.join(".") : "the instance"
  throw new UserError(`${where}: ${field}: ${issue.message}; correct that field or leave the line out`)
}

/** Tokens of a batch, the most that one decode verifies (at least 1), requests in it, and their context. */
export interface BatchLoad {
  tokens: number
  steps: number
  requests: number
  pastTokens: number
}

/** Seconds that a batch takes on the instance's hardware. */
export function batchSeconds(
  { hw, hw_terms: terms }: Pick<Instance, "hw" | "hw_terms">,
  load: BatchLoad,
): number {
  let worst = 0
  for (let i = 0; i < hw.length; i += terms) {
    const time =
      terms === 3
        ? hw[i]! * load.tokens + hw[i + 1]! * load.steps + hw[i + 2]!
        : hw[i]! * load.tokens +
          hw[i + 1]! * load.requests +
          hw[i + 2]! * load.pastTokens +
          hw[i + 3]! * load.steps +
          hw[i + 4]!
    worst = Math.max(worst, time)
  }
  return worst
}
