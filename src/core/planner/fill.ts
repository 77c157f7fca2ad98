/** Which tokens run in the next batch (DESIGN §4 step 4): the batch lasts as long as the tightest decode can
 * wait, decodes that cannot wait go first, prefill by deadline fills it, the other decodes and best-effort follow. */
import type { PolicyOptions } from "../policy/policy.ts"
import type { LiveRequest } from "../request.ts"
import type { Draft } from "./draft.ts"
import type { Work } from "./work.ts"

/** Fill `draft` from `work`. */
export function fillBatch(draft: Draft, work: Work, options: PolicyOptions, nowUs: number): void {
  const { margin } = options
  const { decodes, prefills, hopeful, bestEffort, byValue } = work
  const allDecodesUs = decodeTimeUs(draft, work, decodes.length, 1) * (1 + margin)
  let limitUs = Math.max(allDecodesUs, Math.min(options.maxBatchUs, tightestLeadUs(decodes, nowUs)))
  const waiting = prefills.length > 0 || bestEffort.length > 0

  // A decode that would be late after this batch and the shortest next one cannot wait for it.
  const mustGoBy = waiting ? nowUs + limitUs + allDecodesUs : Infinity
  let urgent = 0
  while (urgent < decodes.length && decodes[urgent]!.dueUs <= mustGoBy) urgent++
  const longest = longestWithin(draft, work, urgent, limitUs / (1 + margin))
  let next = 0
  for (; next < urgent; next++) {
    const drafted = Math.min(work.speculator.lengthOf(decodes[next]!), longest) - 1
    // Whoever is still to come must find room for a token.
    draft.decode(decodes[next]!, byValue, Math.min(drafted, draft.tokensLeft - (urgent - next)))
  }

  for (const request of prefills) {
    if (draft.tokensLeft < 1) break
    const toDeadlineUs = request.dueUs - nowUs
    if (toDeadlineUs > 0 && toDeadlineUs < limitUs && finishesWithin(draft, request, toDeadlineUs, margin))
      limitUs = toDeadlineUs
    draft.prefillWithin(request, limitUs, margin, bestEffort)
  }
  // Hopeful requests spare each other: two that do not fit together would take turns and never end.
  const spared = new Set(hopeful)
  const hopeless = hopeful.length > 0 ? bestEffort.filter((request) => !spared.has(request)) : []
  for (const request of hopeful) draft.prefillWithin(request, limitUs, margin, hopeless)

  for (; next < decodes.length; next++) {
    const request = decodes[next]!
    const drafted = draftWithin(draft, work, request, limitUs, margin)
    if (drafted < 0 && draft.items.length > 0) break
    draft.decode(request, byValue, drafted)
  }

  serveBestEffort(draft, work, limitUs, options, nowUs)
  if (draft.items.length === 0) forceProgress(draft, work)
}

/** Time until the first decode is due, µs; Infinity without decodes. Late ones are past saving. */
export function tightestLeadUs(decodes: readonly LiveRequest[], nowUs: number): number {
  for (const request of decodes) if (request.dueUs > nowUs) return request.dueUs - nowUs
  return Infinity
}

/** Time of a batch of the first `count` decodes alone, each verifying its tokens but at most `longest`, µs. */
function decodeTimeUs(draft: Draft, { decodes, speculator }: Work, count: number, longest: number): number {
  const shape = draft.scratchShape
  shape.reset()
  for (let i = 0; i < count; i++) {
    const length = longest > 1 ? Math.min(longest, speculator.lengthOf(decodes[i]!)) : 1
    shape.add(decodes[i]!.computed, 1, true, length - 1)
  }
  return draft.otherUs(shape.with(0, 0, false, 0), false)
}

/** Most tokens that one of the first `count` decodes may verify for all of them to take at most `limitUs`. */
function longestWithin(draft: Draft, work: Work, count: number, limitUs: number): number {
  let longest = 1
  for (let i = 0; i < count; i++) longest = Math.max(longest, work.speculator.lengthOf(work.decodes[i]!))
  while (longest > 1 && decodeTimeUs(draft, work, count, longest) > limitUs) longest--
  return longest
}

/** Tokens that `request` can draft within `limitUs`: as many as it should, or none; −1 when not even its decode
 * fits. */
function draftWithin(
  draft: Draft,
  work: Work,
  request: LiveRequest,
  limitUs: number,
  margin: number,
): number {
  const drafted = work.speculator.lengthOf(request) - 1
  for (const most of drafted > 0 ? [drafted, 0] : [0]) {
    if (draft.timeUs(margin, request.computed, 1, true, most) <= limitUs) return most
  }
  return -1
}

function finishesWithin(draft: Draft, request: LiveRequest, timeUs: number, margin: number): boolean {
  const start = draft.startOf(request)
  const owed = request.known - start
  return owed <= draft.tokensLeft && draft.timeUs(margin, start, owed, true) <= timeUs
}

/** Best-effort work may stretch a batch while SLO work runs only so far, since an arrival waits for the batch's
 * end. When that has left it nothing for a while, it gets what the tightest decode can spare: it must not starve. */
export function serveBestEffort(
  draft: Draft,
  work: Work,
  limitUs: number,
  options: PolicyOptions,
  nowUs: number,
): void {
  const { bestEffort } = work
  if (bestEffort.length === 0) {
    work.bestEffortServedUs = nowUs
    return
  }
  const before = draft.items.length
  const alone = work.decodes.length === 0 && work.prefills.length === 0
  const starved = nowUs - work.bestEffortServedUs >= options.bestEffortEveryUs
  const usualUs = Math.min(limitUs, Math.max(options.bestEffortBatchUs, draft.timeUs(options.margin)))
  fillBestEffort(draft, work, alone ? options.maxBatchUs : starved ? limitUs : usualUs, options.margin)
  if (draft.items.length > before) work.bestEffortServedUs = nowUs
}

function fillBestEffort(draft: Draft, work: Work, limitUs: number, margin: number): void {
  const requests = work.bestEffort
  // Only who holds KV can give it up: with a thousand waiting, looking through all of them for each is the pause.
  let last = requests.length - 1
  for (let i = 0; i < requests.length && draft.tokensLeft > 0; i++) {
    const request = requests[i]!
    if (draft.has(request)) continue
    while (last > i && (draft.has(requests[last]!) || !draft.kv.holds(requests[last]!.id))) last--
    const later = last > i ? requests.slice(i + 1, last + 1) : undefined
    if (later === undefined && !draft.kv.canAttach() && !draft.kv.holds(request.id)) continue
    if (!request.decoding) draft.prefillWithin(request, limitUs, margin, later)
    else {
      const drafted = draftWithin(draft, work, request, limitUs, margin)
      if (drafted >= 0) draft.decode(request, later, drafted)
    }
  }
}

/** Nothing fitted (a least chunk alone outlasts the limit): run the first work there is, as little as possible. */
export function forceProgress(draft: Draft, work: Work): void {
  for (const list of [work.decodes, work.prefills, work.bestEffort]) {
    for (const request of list) {
      if (
        request.decoding
          ? draft.decode(request, work.byValue)
          : draft.prefill(request, draft.limits.minChunkTokens + 1, work.byValue) > 0
      ) {
        return
      }
    }
  }
}
