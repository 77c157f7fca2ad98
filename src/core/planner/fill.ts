/** Which tokens run in the next batch (docs/design.md, Batches): the batch lasts as long as the tightest decode can
 * wait, decodes that cannot wait go first, prefill by deadline fills it, the other decodes and best-effort follow. */
import type { PolicyOptions } from "../options.ts"
import type { LiveRequest } from "../request.ts"
import { reserveAdapters } from "./adapter-turns.ts"
import { arrivalsAllow } from "./arrivals-allow.ts"
import type { BatchBuilder } from "./batch-builder.ts"
import { mayStart, serveBestEffort, serveOverdue } from "./best-effort.ts"
import { pressingOf } from "./pressing.ts"
import { decodeTimeUs, draftWithin, lengthsWithin } from "./speculation/draft-lengths.ts"
import { tightestPaceUs, type Work } from "./work.ts"

/** A decode keeps at least a pace of one token in so many longest batches, however late it is due: it holds KV. */
const MOST_PAUSE_BATCHES = 10

/** Where decodes can hardly keep pace, a prompt that is due soon keeps so much of the margin: with all of it there would be
 * room for a chunk only when they end, and a prompt that is late for certain saves none of them. One that can wait for
 * that end takes more. */
const PRESSING_CAUTION = 0.5
const PATIENT_CAUTION = 1.5

/** Beside decodes a prompt that is not due for so long gets room from so large a share of their step on. */
const PRESSING_US = 10_000_000
const LEAST_PIECE = 0.4

/** A batch on its way. */
interface Filling {
  batch: BatchBuilder
  work: Work
  options: PolicyOptions
  nowUs: number
  /** It may take so long, margin included, µs. */
  limitUs: number
  /** Decodes can hardly keep pace: a step of theirs takes longer, margin included, than the tightest TPOT. */
  tight: boolean
  /** It should not take longer for the sake of those that may arrive meanwhile, µs. */
  usualUs: number
  /** Nor longer than this where a prompt is first in it and goes whole, µs. */
  wholeUs: number
  /** Until the first decode is due, µs. */
  leadUs: number
  /** What a step of all decodes takes, margin included, µs. */
  allDecodesUs: number
  /** Decodes that cannot wait: so many of the first due. */
  urgent: number
  /** Until the first of each tenant's prompts in the batch is due, µs. */
  promptsDue: Map<number, number>
  /** Prompts of tenants that are not ahead can wait so long, µs. */
  othersWaitUs: number
}

/** Fill `batch` from `work`. */
export function fillBatch(batch: BatchBuilder, work: Work, options: PolicyOptions, nowUs: number): void {
  const filling = begin(batch, work, options, nowUs)
  reserveAdapters(batch, work, options, nowUs, filling.allDecodesUs)
  work.prefixWait.begin(work.prefills, work.bestEffort)
  addUrgentDecodes(filling)
  shortenForOthers(filling)
  addPausedDecodes(filling)
  serveOverdue(batch, work, filling.limitUs, nowUs)
  addPrefills(filling)
  addHopeful(filling)
  addOtherDecodes(filling)
  serveBestEffort(batch, work, filling.limitUs, options, nowUs)
  // What a place was kept for may have found no room.
  if (batch.adapters.release()) addOtherDecodes(filling)
  if (batch.items.length === 0) forceProgress(batch, work)
}

/** How long the batch may be, and which decodes cannot wait for the next one: those that would cut it short. Where a
 * step costs more than its decodes none waits: one left out saves little now, and every later batch must be as short
 * as its due time. */
function begin(batch: BatchBuilder, work: Work, options: PolicyOptions, nowUs: number): Filling {
  const { decodes, prefills, bestEffort } = work
  const { maxBatchUs } = options
  const margin = batch.context.margin("decode")
  const timeUs = (count: number) => decodeTimeUs(batch.context, work, count, 1) * (1 + margin)
  const allDecodesUs = timeUs(decodes.length)
  const leadUs = tightestLeadUs(decodes, nowUs)
  // Decodes that outlast the first one's due time run all the same; anything more would only make it later.
  const { usualUs, wholeUs } = arrivalsAllow(batch, work, maxBatchUs)
  const limitUs = Math.min(leadUs, Math.max(allDecodesUs, usualUs))
  const paceUs = tightestPaceUs(decodes)
  const nextUs = Math.max(allDecodesUs, Math.min(maxBatchUs, paceUs))
  const tight = allDecodesUs > paceUs
  const othersWait = prefills.length > 0 || bestEffort.length > 0
  const stepsAreDear = !work.exact && allDecodesUs <= 2 * timeUs(Math.min(1, decodes.length))
  const mustGoBy = othersWait && !stepsAreDear ? nowUs + limitUs + nextUs : Infinity
  let urgent = 0
  while (urgent < decodes.length && decodes[urgent]!.dueUs <= mustGoBy) urgent++
  return {
    batch,
    work,
    options,
    nowUs,
    limitUs,
    tight,
    usualUs,
    wholeUs,
    leadUs,
    allDecodesUs,
    urgent,
    promptsDue: new Map(),
    othersWaitUs: Infinity,
  }
}

function addUrgentDecodes({ batch, work, limitUs, urgent }: Filling): void {
  const { longest, more } = lengthsWithin(
    batch.context,
    work,
    urgent,
    limitUs / (1 + batch.context.margin("drafted")),
  )
  for (let i = 0; i < urgent; i++) {
    const request = work.decodes[i]!
    const drafted = Math.min(work.speculator.lengthOf(request), i < more ? longest + 1 : longest) - 1
    // Those still to come must find room for a token.
    batch.decode(request, work.byValue, Math.min(drafted, batch.tokensLeft - (urgent - i)))
  }
}

/** Decodes whose adapters found no place here are in the next batch, which must begin in time for them. */
function shortenForOthers(filling: Filling): void {
  const { batch, work, nowUs, urgent, allDecodesUs } = filling
  if (batch.adapters.isFree) return
  const asItIsUs = batch.safeUs()
  for (let i = 0; i < urgent; i++) {
    const request = work.decodes[i]!
    if (batch.has(request) || batch.adapters.allow(request)) continue
    const untilUs = request.dueUs - nowUs - allDecodesUs
    if (untilUs < asItIsUs) continue
    filling.limitUs = Math.min(filling.limitUs, untilUs)
    filling.leadUs = Math.min(filling.leadUs, untilUs)
  }
}

function addPausedDecodes({ batch, work, options, nowUs, urgent }: Filling): void {
  const pauseUs = MOST_PAUSE_BATCHES * options.maxBatchUs
  for (let i = urgent; i < work.decodes.length; i++) {
    const request = work.decodes[i]!
    if (nowUs - request.firstTokenUs > request.output * pauseUs) batch.decode(request, work.byValue)
  }
}

/** By deadline; a deadline that a prefill can still make cuts the batch short. */
function addPrefills(filling: Filling): void {
  const { batch, work, nowUs, limitUs } = filling
  if (work.tenantsAhead.size > 0) {
    const pressing = pressingOf(work.prefills, work.tenantsAhead, batch, limitUs, nowUs)
    filling.othersWaitUs = pressing.othersWaitUs
    for (const request of pressing.now) if (!addPrefill(filling, request)) return
  }
  for (const request of work.prefills) if (!addPrefill(filling, request)) return
}

/** False when no prompt finds room any more. */
function addPrefill(filling: Filling, request: LiveRequest): boolean {
  const { batch, work, nowUs } = filling
  if (batch.tokensLeft < 1 || batch.isFull(limitFor(filling, request))) return false
  if (batch.has(request) || waitsForPrefix(filling, request)) return true
  const toDeadlineUs = request.dueUs - nowUs
  // What is not due for long is not worth a risk: it waits until there is room for a good piece.
  if (toDeadlineUs > PRESSING_US && filling.leadUs < (1 + LEAST_PIECE) * filling.allDecodesUs) return false
  const tightens = toDeadlineUs > 0 && toDeadlineUs < filling.limitUs
  if (tightens && finishesWithin(batch, request, toDeadlineUs)) filling.limitUs = toDeadlineUs
  else if (toDeadlineUs > filling.limitUs) stretchFor(filling, request, toDeadlineUs)
  if (batch.prefillWithin(request, limitFor(filling, request), work.yielding) === 0) return true
  work.prefixWait.started(request)
  notePrompt(filling, request, toDeadlineUs)
  return true
}

function notePrompt({ promptsDue }: Filling, { tenant }: LiveRequest, toDeadlineUs: number): void {
  const dueUs = promptsDue.get(tenant)
  if (toDeadlineUs > 0 && (dueUs === undefined || toDeadlineUs < dueUs)) promptsDue.set(tenant, toDeadlineUs)
}

/** How long the batch may become with a piece of this prompt. */
function limitFor({ batch, limitUs, tight, nowUs }: Filling, { dueUs }: LiveRequest): number {
  if (!tight) return limitUs
  const margin = batch.context.margin("mixed")
  const caution = dueUs - nowUs < PRESSING_US ? PRESSING_CAUTION : PATIENT_CAUTION
  return (limitUs * (1 + margin)) / (1 + caution * margin)
}

/** A prompt that in pieces would be late, since every piece pays for a step, goes whole if it is in time so and no decode is
 * due before. */
function stretchFor(filling: Filling, request: LiveRequest, toDeadlineUs: number): void {
  const { batch, work, leadUs, limitUs, usualUs } = filling
  const start = batch.context.startOf(request)
  const owed = request.known - start
  if (owed > batch.tokensLeft) return
  const wholeUs = batch.timeUs(start, owed, request.rowsOf(owed, true))
  if (wholeUs <= limitUs || wholeUs > Math.min(leadUs, toDeadlineUs)) return
  // It may make its own tenant's prompts late, never another's.
  if (wholeUs > filling.othersWaitUs && work.tenantsAhead.has(request.tenant)) return
  for (const [tenant, dueUs] of filling.promptsDue) if (tenant !== request.tenant && wholeUs > dueUs) return
  const stepUs = batch.timeUs(0, 1)
  const pieces = Math.ceil((wholeUs - stepUs) / Math.max(1, usualUs - stepUs))
  // Its objective asks for it: what is late because it had to wait would make others late in turn.
  const tooSlow = wholeUs + (pieces - 1) * stepUs > request.deadlineUs - request.arrivalUs
  if (tooSlow || (wholeUs <= filling.wholeUs && batch.chunks === 0))
    filling.limitUs = wholeUs * (1 + batch.context.margin("mixed"))
}

/** Another request computes what this one begins with: its turn then is that one's, as far as they are alike. It waits,
 * unless it can be done in this very batch and may be late after it. */
function waitsForPrefix({ batch, work, nowUs, limitUs }: Filling, request: LiveRequest): boolean {
  const awaited = work.prefixWait.for(request, batch.context)
  if (awaited === null) return false
  const { by, tokens } = awaited
  if (request.dueUs - nowUs < 2 * limitUs && finishesWithin(batch, request, limitUs)) return false
  if (!batch.has(by)) batch.prefillWithin(by, limitUs, work.yielding, tokens - by.computed)
  return true
}

/** Hopeful requests spare each other: two that do not fit together would take turns and never end. */
function addHopeful(filling: Filling): void {
  const { batch, work } = filling
  const { hopeful, yielding } = work
  if (hopeful.length === 0) return
  const spared = new Set(hopeful)
  const hopeless = yielding.filter((request) => !spared.has(request))
  for (const request of hopeful) {
    const limitUs = limitFor(filling, request)
    if (batch.isFull(limitUs)) return
    if (batch.has(request) || !batch.adapters.allow(request)) continue
    if (work.prefixWait.for(request, batch.context) !== null) continue
    if (!mayStart(request, batch, work)) continue
    if (batch.prefillWithin(request, limitUs, hopeless) > 0) work.prefixWait.started(request)
  }
}

function addOtherDecodes({ batch, work, limitUs, urgent }: Filling): void {
  // Of those that cannot wait some may have found no place for their adapters.
  for (let i = batch.adapters.most < Infinity ? 0 : urgent; i < work.decodes.length; i++) {
    const request = work.decodes[i]!
    if (batch.has(request)) continue
    const drafted = draftWithin(batch, work, request, limitUs)
    if (drafted < 0 && batch.items.length > 0) return
    batch.decode(request, work.byValue, drafted)
  }
}

/** Time until the first decode is due, µs; Infinity without decodes. Late ones are past saving. */
export function tightestLeadUs(decodes: readonly LiveRequest[], nowUs: number): number {
  for (const request of decodes) if (request.dueUs > nowUs) return request.dueUs - nowUs
  return Infinity
}

function finishesWithin(batch: BatchBuilder, request: LiveRequest, timeUs: number): boolean {
  const start = batch.context.startOf(request)
  const owed = request.known - start
  return owed <= batch.tokensLeft && batch.safeUs(start, owed, request.rowsOf(owed, true)) <= timeUs
}

/** Nothing fitted (a least chunk alone outlasts the limit): run the first work there is, as little as possible. */
export function forceProgress(batch: BatchBuilder, work: Work): void {
  batch.adapters.release()
  for (const list of [work.decodes, work.prefills, work.bestEffort]) {
    for (const request of list) {
      if (
        request.decoding
          ? batch.decode(request, work.byValue)
          : batch.prefill(request, batch.context.limits.minChunkTokens + 1, work.byValue) > 0
      ) {
        return
      }
    }
  }
}
