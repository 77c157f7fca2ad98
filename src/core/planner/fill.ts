/** Which tokens run in the next batch (DESIGN §4 step 4): the batch lasts as long as the tightest decode can
 * wait, decodes that cannot wait go first, prefill by deadline fills it, the other decodes and best-effort follow. */
import type { PolicyOptions } from "../policy/policy.ts"
import type { LiveRequest } from "../request.ts"
import type { Draft } from "./draft.ts"
import type { Work } from "./work.ts"

/** A decode keeps at least a pace of one token in so many longest batches, however late it is due: it holds KV. */
const MOST_PAUSE_BATCHES = 10

const UNDRAFTED = { longest: 1, more: 0 }

/** Fill `draft` from `work`. */
export function fillBatch(draft: Draft, work: Work, options: PolicyOptions, nowUs: number): void {
  const { margin } = options
  const { decodes, prefills, hopeful, bestEffort, byValue } = work
  const allDecodesUs = decodeTimeUs(draft, work, decodes.length, 1) * (1 + margin)
  let limitUs = Math.max(allDecodesUs, Math.min(options.maxBatchUs, tightestLeadUs(decodes, nowUs)))
  const waiting = prefills.length > 0 || bestEffort.length > 0

  // A decode that would cut the next batch short cannot wait for it. Where a step costs more than its decodes none
  // waits: one left out saves little now, and every later batch must be as short as its due time.
  const nextUs = Math.max(allDecodesUs, Math.min(options.maxBatchUs, tightestPaceUs(decodes)))
  const oneDecodeUs = decodeTimeUs(draft, work, Math.min(1, decodes.length), 1) * (1 + margin)
  const stepsAreDear = !work.exact && allDecodesUs <= 2 * oneDecodeUs
  const mustGoBy = waiting && !stepsAreDear ? nowUs + limitUs + nextUs : Infinity
  let urgent = 0
  while (urgent < decodes.length && decodes[urgent]!.dueUs <= mustGoBy) urgent++
  const { longest, more } = lengthsWithin(draft, work, urgent, limitUs / (1 + margin))
  let next = 0
  for (; next < urgent; next++) {
    const most = next < more ? longest + 1 : longest
    const drafted = Math.min(work.speculator.lengthOf(decodes[next]!), most) - 1
    // Whoever is still to come must find room for a token.
    draft.decode(decodes[next]!, byValue, Math.min(drafted, draft.tokensLeft - (urgent - next)))
  }
  const pauseUs = MOST_PAUSE_BATCHES * options.maxBatchUs
  for (let i = urgent; i < decodes.length; i++) {
    const request = decodes[i]!
    if (nowUs - request.firstTokenUs > request.output * pauseUs) draft.decode(request, byValue)
  }

  for (const request of prefills) {
    if (draft.tokensLeft < 1) break
    const toDeadlineUs = request.dueUs - nowUs
    if (toDeadlineUs > 0 && toDeadlineUs < limitUs && finishesWithin(draft, request, toDeadlineUs, margin))
      limitUs = toDeadlineUs
    draft.prefillWithin(request, limitUs, margin, bestEffort)
  }
  // Hopeful requests spare each other: two that do not fit together would take turns and never end.
  const spared = hopeful.length > 0 ? new Set(hopeful) : null
  const hopeless = spared === null ? [] : bestEffort.filter((request) => !spared.has(request))
  for (const request of hopeful) {
    if (mayStart(request, draft, work)) draft.prefillWithin(request, limitUs, margin, hopeless)
  }

  for (; next < decodes.length; next++) {
    const request = decodes[next]!
    if (draft.has(request)) continue
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

/** The smallest time per output token of the decodes, µs. */
function tightestPaceUs(decodes: readonly LiveRequest[]): number {
  let paceUs = Infinity
  for (const { tpotUs } of decodes) if (tpotUs < paceUs) paceUs = tpotUs
  return paceUs
}

/** Time of a batch of the first `count` decodes alone, each verifying its tokens but at most `longest`, one more
 * for the first `more` of them, µs. */
function decodeTimeUs(draft: Draft, work: Work, count: number, longest: number, more = 0): number {
  const { decodes, speculator } = work
  const shape = draft.scratchShape
  shape.reset()
  for (let i = 0; i < count; i++) {
    const most = i < more ? longest + 1 : longest
    const length = most > 1 ? Math.min(most, speculator.lengthOf(decodes[i]!)) : 1
    shape.add(decodes[i]!.computed, 1, true, length - 1)
  }
  return draft.otherUs(shape.with(0, 0, false, 0), false)
}

/** Most tokens that each of the first `count` decodes may verify for all of them to take at most `limitUs`, and
 * how many of them, from the first due, may verify one more. */
function lengthsWithin(
  draft: Draft,
  work: Work,
  count: number,
  limitUs: number,
): { longest: number; more: number } {
  if (!work.speculator.drafts) return UNDRAFTED
  let planned = 1
  for (let i = 0; i < count; i++) planned = Math.max(planned, work.speculator.lengthOf(work.decodes[i]!))
  let longest = planned
  while (longest > 1 && decodeTimeUs(draft, work, count, longest) > limitUs) longest--
  if (longest === planned) return { longest, more: 0 }
  let more = 0
  for (let high = count; high - more > 1; ) {
    const middle = (more + high) >> 1
    if (decodeTimeUs(draft, work, count, longest, middle) <= limitUs) more = middle
    else high = middle
  }
  return { longest, more }
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
 * end. When that has left it nothing for a while, it gets what the tightest decode can spare: who holds KV must not starve. */
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
    if (draft.has(request) || (!request.decoding && draft.isFull(limitUs, margin))) continue
    if (!mayStart(request, draft, work)) continue
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

/** Who is turned down may take KV only where those with a promise will not need it: else it is evicted before its
 * end, its prefill done for nothing, and the promises' decodes with it. */
function mayStart(request: LiveRequest, draft: Draft, work: Work): boolean {
  if (draft.kv.holds(request.id)) return true
  work.spareKvTokens ??= work.forecastSpareKv(draft)
  const { app, maxOutputTokens } = request.spec
  const needs = request.known + draft.lengths.remaining(app, request.output, maxOutputTokens)
  if (needs > work.spareKvTokens) return false
  work.spareKvTokens -= needs
  return true
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
