/** How many tokens each decode of a batch may verify for the batch to stay within its time. */
import type { LiveRequest } from "../../request.ts"
import type { BatchBuilder } from "../batch-builder.ts"
import type { PlanningContext } from "../context.ts"
import type { Work } from "../work.ts"

/** The decodes by due time, and how they speculate. */
type Decodes = Readonly<Pick<Work, "speculator">> & { readonly decodes: readonly LiveRequest[] }

const UNDRAFTED = { longest: 1, more: 0 }

/** Time of a batch of the first `count` decodes alone, each verifying its tokens but at most `longest`, one more
 * for the first `more` of them, µs. */
export function decodeTimeUs(
  context: PlanningContext,
  work: Decodes,
  count: number,
  longest: number,
  more = 0,
): number {
  const { decodes, speculator } = work
  const shape = context.scratchShape
  shape.reset()
  for (let i = 0; i < count; i++) {
    const most = i < more ? longest + 1 : longest
    const length = most > 1 ? Math.min(most, speculator.lengthOf(decodes[i]!)) : 1
    shape.add(decodes[i]!.computed, 1, 1, length - 1)
  }
  return context.stepUs(shape.with(0, 0, 0, 0), false)
}

/** Most tokens that each of the first `count` decodes may verify for all of them to take at most `limitUs`, and
 * how many of them, from the first due, may verify one more. */
export function lengthsWithin(
  context: PlanningContext,
  work: Work,
  count: number,
  limitUs: number,
): { longest: number; more: number } {
  if (!work.speculator.drafts) return UNDRAFTED
  let planned = 1
  for (let i = 0; i < count; i++) planned = Math.max(planned, work.speculator.lengthOf(work.decodes[i]!))
  let longest = planned
  while (longest > 1 && decodeTimeUs(context, work, count, longest) > limitUs) longest--
  if (longest === planned) return { longest, more: 0 }
  let more = 0
  for (let high = count; high - more > 1; ) {
    const middle = (more + high) >> 1
    if (decodeTimeUs(context, work, count, longest, middle) <= limitUs) more = middle
    else high = middle
  }
  return { longest, more }
}

/** Tokens that `request` can draft within `limitUs`: as many as it should, or none; −1 when not even its decode
 * fits. */
export function draftWithin(batch: BatchBuilder, work: Work, request: LiveRequest, limitUs: number): number {
  const drafted = work.speculator.lengthOf(request) - 1
  const withinUs = batch.orAsItIsUs(limitUs)
  for (const most of drafted > 0 ? [drafted, 0] : [0]) {
    if (batch.safeUs(request.computed, 1, 1, most) <= withinUs) return most
  }
  return -1
}
