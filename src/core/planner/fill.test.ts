/** How long a batch becomes, and what each prompt gets of it. A step is 5 ms and 0.1 ms a token. */
import { describe, expect, test } from "vitest"
import { ArrivalSlack } from "../learn/arrival-slack.ts"
import { DEFAULT_OPTIONS } from "../options.ts"
import type { LiveRequest } from "../request.ts"
import { contextOf, LIMITS, liveOf } from "../testing.ts"
import { BatchBuilder } from "./batch-builder.ts"
import { fillBatch } from "./fill.ts"
import { emptyWork, sortWork } from "./work.ts"

const limits = { ...LIMITS, kvTokens: 64_000, maxBatchTokens: 4096, minChunkTokens: 1 }

const NOW_US = 1_000_000

/** Its first token is due so long from now; it came `agoUs` ago. */
function prompt(
  id: number,
  promptTokens: number,
  dueUs: number,
  changes: object = {},
  agoUs = 0,
): LiveRequest {
  const ttftUs = dueUs + agoUs
  const slo = { ttftUs, ttftSlowdown: 0, tpotUs: 1e9, thinkingTpotUs: 1e9, maxGapUs: Infinity }
  return liveOf(id, { promptTokens, maxOutputTokens: 1, slo, ...changes }, NOW_US - agoUs)
}

/** Learnt from one arrival, as good as exactly; the least that can be learnt comes from many. */
function slackOf(slackUs: number): ArrivalSlack {
  const slack = new ArrivalSlack()
  for (let i = 0; i < (slackUs < 1000 ? 100 : 1); i++) slack.observe(slackUs)
  return slack
}

interface Given {
  margin?: number | null
  arrivalSlackUs?: number
  /** A decode with this TPOT whose next token is due then. */
  decode?: { tpotUs: number; dueUs: number }
  hopeful?: boolean
  /** Requests whose KV may be taken besides, the last one first. */
  hopeless?: LiveRequest[]
  spareKvTokens?: number
  maxBatchUs?: number
  maxBatchTokens?: number
  minChunkTokens?: number
  maxSequences?: number
  /** Batches in flight. */
  ahead?: number
  /** Whose turn it is: not by due time. */
  inThisOrder?: boolean
}

/** Tokens of each request in the batch. */
function filled(prompts: LiveRequest[], given: Given = {}) {
  const { margin = 0, arrivalSlackUs, ahead = 0, decode, hopeful, hopeless = [], spareKvTokens } = given
  const { maxBatchTokens, minChunkTokens, maxSequences } = { ...limits, ...given }
  const context = contextOf({ ...limits, maxBatchTokens, minChunkTokens, maxSequences }, { margin, ahead })
  for (const request of [...prompts, ...hopeless]) {
    if (request.computed === 0) continue
    context.kv.attach(request.id, request.prefix, -1, null)
    context.kv.grow(request.id, request.computed)
  }
  const requests = [...prompts]
  if (decode !== undefined) {
    const { tpotUs, dueUs } = decode
    const slo = { ttftUs: 1, ttftSlowdown: 0, tpotUs, thinkingTpotUs: tpotUs, maxGapUs: Infinity }
    const running = liveOf(0, { slo })
    context.kv.attach(0, [], -1, null)
    context.kv.grow(0, 100)
    running.computed = 100
    running.emit(1, -1, NOW_US, () => {})
    requests.unshift(Object.assign(running, { dueUs: NOW_US + dueUs }))
  }
  const work = emptyWork()
  if (hopeful) for (const request of prompts) request.tier = "bestEffort"
  for (const request of hopeless) request.tier = "bestEffort"
  sortWork([...requests, ...hopeless], work)
  if (given.inThisOrder) work.prefills = [...prompts]
  if (spareKvTokens !== undefined) work.forecastSpareKv = () => spareKvTokens
  if (hopeful) work.hopeful.push(...prompts)
  if (arrivalSlackUs !== undefined) {
    work.arrivalSlack = slackOf(arrivalSlackUs)
  }
  const batch = new BatchBuilder(context)
  batch.reset(NOW_US)
  const maxBatchUs = given.maxBatchUs ?? DEFAULT_OPTIONS.maxBatchUs
  // Best effort gets what there is no test for here.
  work.bestEffortServedUs = NOW_US
  fillBatch(batch, work, { ...DEFAULT_OPTIONS, margin, maxBatchUs, bestEffortBatchUs: 0 }, NOW_US)
  return Object.fromEntries(batch.items.map(({ id, tokens }) => [id, tokens]))
}

describe("beside decodes that hardly keep pace, what a prompt gets keeps", () => {
  const SOON_US = 500_000
  const LATER_US = 20_000_000
  // A step of the decode takes 5.1 ms, 6.12 with the margin.
  const tight = { margin: 0.2, decode: { tpotUs: 6000, dueUs: 9000 } }

  test("half the margin where it is due soon: 9 ms / 1.1", () => {
    expect(filled([prompt(1, 500, SOON_US)], tight)).toEqual({ 0: 1, 1: 30 })
  })

  test("half as much again where it is not: 9 ms / 1.3", () => {
    expect(filled([prompt(1, 500, LATER_US)], tight)).toEqual({ 0: 1, 1: 18 })
  })

  test("half of it, too, where it was turned down and may come back", () => {
    expect(filled([prompt(1, 500, SOON_US)], { ...tight, hopeful: true })).toEqual({ 0: 1, 1: 30 })
  })

  test("all of it where they keep pace: 9 ms / 1.2", () => {
    const easy = { margin: 0.2, decode: { tpotUs: 6200, dueUs: 9000 } }
    for (const dueUs of [SOON_US, LATER_US])
      expect(filled([prompt(1, 500, dueUs)], easy)).toEqual({ 0: 1, 1: 24 })
  })

  test("nothing where it is not due for long and there is room for a small piece only", () => {
    const decode = { tpotUs: 6000, dueUs: 8500 }
    expect(filled([prompt(1, 500, LATER_US)], { margin: 0.2, decode })).toEqual({ 0: 1 })
  })
})

describe("those that keep arriving", () => {
  const [first, second] = [300, 400]
  const prompts = () => [prompt(1, first, 900_000), prompt(2, second, 950_000)]

  test("can wait: several prompts make one long batch", () => {
    expect(filled(prompts(), { arrivalSlackUs: 200_000 })).toEqual({ 1: 300, 2: 400 })
  })

  test("can wait for a part of it: it ends after eight times their slack", () => {
    const slack = slackOf(5000)
    const room = (8 * slack.us - 5000) / 100
    expect(room).toBeLessThan(700)
    expect(filled(prompts(), { arrivalSlackUs: 5000 })).toEqual({ 1: 300, 2: Math.floor(room) - 300 })
  })

  test("wait for this batch, for those in flight, and for their own: all of them within the slack", () => {
    const short = () => Array.from({ length: 12 }, (_, i) => prompt(i + 1, 90, 900_000 + i))
    const { us } = slackOf(150_000)
    for (const ahead of [0, 1, 2]) {
      const items = filled(short(), { maxSequences: 16, arrivalSlackUs: 150_000, ahead })
      const tokens = Object.values(items).reduce((a, b) => a + b, 0)
      expect(tokens).toBe(Math.floor((us / (ahead + 2) - 5000) / 100))
    }
  })

  test("and no prompt goes whole that would not leave the time for the others", () => {
    const given = { arrivalSlackUs: 120_000, ahead: 1 }
    const { us } = slackOf(120_000)
    const third = Math.floor((us / 3 - 5000) / 100)
    expect(filled([prompt(1, third, 900_000)], given)).toEqual({ 1: third })
    expect(filled([prompt(1, third + 100, 900_000)], given)).toEqual({ 1: third })
    expect(filled([prompt(1, third + 100, 900_000)], { ...given, ahead: 0 })).toEqual({ 1: third + 100 })
  })

  test("can hardly wait: a prompt goes whole, since pieces cost steps, and nothing more", () => {
    expect(filled(prompts(), { arrivalSlackUs: 1 })).toEqual({ 1: 300 })
  })

  test("can hardly wait: of one that takes longer than a longest batch, as much as is worth a step", () => {
    expect(filled([prompt(1, 960, 900_000)], { arrivalSlackUs: 1 })).toEqual({ 1: 36 })
  })
})

describe("a prompt's deadline", () => {
  test("that can be made ends the batch", () => {
    expect(filled([prompt(1, 100, 20_000), prompt(2, 500, 900_000)])).toEqual({ 1: 100, 2: 50 })
    expect(filled([prompt(1, 100, 15_000), prompt(2, 500, 900_000)])).toEqual({ 1: 100 })
  })

  test("that cannot be made does not, nor one that has passed", () => {
    for (const dueUs of [14_999, 0, -1])
      expect(filled([prompt(1, 100, dueUs), prompt(2, 500, 900_000)])).toEqual({ 1: 100, 2: 500 })
  })

  test("is made only with its margin, and within the batch's tokens", () => {
    const two = () => [prompt(1, 100, 17_999), prompt(2, 500, 900_000)]
    expect(filled(two(), { margin: 0.2 })).toEqual({ 1: 100, 2: 500 })
    expect(filled([prompt(1, 100, 18_000), prompt(2, 500, 900_000)], { margin: 0.2 })).toEqual({ 1: 100 })
    const large = () => [prompt(1, 301, 50_000), prompt(2, 500, 900_000)]
    expect(filled(large(), { maxBatchTokens: 300 })).toEqual({ 1: 300 })
  })

  test("counts from what is computed", () => {
    const begun = Object.assign(prompt(1, 300, 20_000), { computed: 200 })
    expect(filled([begun, prompt(2, 500, 900_000)])).toEqual({ 1: 100, 2: 50 })
  })

  test("of ten seconds and more lets it wait for decodes that leave no room for a good piece", () => {
    const tight = { margin: 0.2, decode: { tpotUs: 6000, dueUs: 8500 } }
    // 8.5 ms / 1.3 at ten seconds, / 1.1 before.
    expect(filled([prompt(1, 500, 10_000_000)], tight)).toEqual({ 0: 1, 1: 14 })
    expect(filled([prompt(1, 500, 10_000_001)], tight)).toEqual({ 0: 1 })
    expect(filled([prompt(1, 500, 9_999_999)], tight)).toEqual({ 0: 1, 1: 26 })
  })
})

describe("a prompt longer than the longest batch", () => {
  // It takes 125 ms alone. In two pieces it pays for two steps: 130.1.
  test("goes whole where it would be late in pieces, and is not late so", () => {
    expect(filled([prompt(1, 1200, 130_099)])).toEqual({ 1: 1200 })
    expect(filled([prompt(1, 1200, 130_100)])).toEqual({ 1: 950 })
    expect(filled([prompt(1, 1200, 125_000)])).toEqual({ 1: 1200 })
    expect(filled([prompt(1, 1200, 124_999)])).toEqual({ 1: 950 })
  })

  test("not where it is late only because it had to wait", () => {
    expect(filled([prompt(1, 1200, 130_000, {}, 99)])).toEqual({ 1: 1200 })
    expect(filled([prompt(1, 1200, 130_000, {}, 100)])).toEqual({ 1: 950 })
  })

  test("not before a decode that is due meanwhile", () => {
    const beside = (dueUs: number) => filled([prompt(1, 1200, 130_099)], { decode: { tpotUs: 1e6, dueUs } })
    expect(beside(125_100)).toEqual({ 0: 1, 1: 1200 })
    expect(beside(125_099)).toEqual({ 0: 1, 1: 949 })
  })

  test("not where there is no room for all its tokens", () => {
    expect(filled([prompt(1, 1200, 130_099)], { maxBatchTokens: 1200 })).toEqual({ 1: 1200 })
    expect(filled([prompt(1, 1201, 130_099)], { maxBatchTokens: 1200 })).toEqual({ 1: 950 })
  })

  test("takes its margin, be it learnt", () => {
    expect(filled([prompt(1, 1200, 130_000)], { margin: 0.2 })).toEqual({ 1: 1200 })
    expect(filled([prompt(1, 1200, 130_000)], { margin: null })).toEqual({ 1: 1200 })
  })

  test("counts from what is computed", () => {
    const begun = Object.assign(prompt(1, 1500, 130_099), { computed: 300 })
    expect(filled([begun])).toEqual({ 1: 1200 })
  })

  test("in batches that are short for the sake of arrivals: whole where pieces would cost them as much", () => {
    // Twenty steps of 5 ms, less the 8.67 ms that batches take as a rule.
    expect(filled([prompt(1, 863, 900_000)], { arrivalSlackUs: 1 })).toEqual({ 1: 863 })
    expect(filled([prompt(1, 864, 900_000)], { arrivalSlackUs: 1 })).toEqual({ 1: 36 })
    expect(filled([prompt(1, 951, 900_000)], { arrivalSlackUs: 1 })).toEqual({ 1: 36 })
    // 27 pieces: with 26 steps more it takes 232.7 ms.
    expect(filled([prompt(1, 951, 232_000)], { arrivalSlackUs: 1 })).toEqual({ 1: 951 })
    expect(filled([prompt(1, 951, 234_000)], { arrivalSlackUs: 1 })).toEqual({ 1: 36 })
  })
})

describe("a prompt that goes whole beside others", () => {
  /** Batches of 8.67 ms: 34 tokens leave room for two, and 100 more make it 18.4. */
  const beside = (first: LiveRequest[], tenant: number) =>
    filled([...first, prompt(9, 100, 30_000, { tenant })], { arrivalSlackUs: 1, inThisOrder: true })
  const piece = { 1: 34, 9: 2 }
  const whole = { 1: 34, 9: 100 }

  test("makes late none of another tenant's", () => {
    expect(beside([prompt(1, 34, 18_399)], 1)).toEqual(piece)
    expect(beside([prompt(1, 34, 18_400)], 1)).toEqual(whole)
  })

  test("may make its own tenant's late", () => {
    expect(beside([prompt(1, 34, 12_000)], 0)).toEqual(whole)
  })

  test("none is made late that is late", () => {
    for (const dueUs of [0, -1]) expect(beside([prompt(1, 34, dueUs)], 1)).toEqual(whole)
  })

  test("of several the first due counts, in whatever order they came", () => {
    const two = (first: number, second: number) => [prompt(1, 17, first), prompt(2, 17, second)]
    expect(beside(two(25_000, 12_000), 1)).toEqual({ 1: 17, 2: 17, 9: 2 })
    expect(beside(two(12_000, 25_000), 1)).toEqual({ 1: 17, 2: 17, 9: 2 })
    expect(beside(two(25_000, 21_000), 1)).toEqual({ 1: 17, 2: 17, 9: 100 })
  })
})

describe("of prompts that begin alike", () => {
  const prefix = Array.from({ length: 10 }, (_, i) => i + 1)
  const alike = (id: number, dueUs: number) => prompt(id, 300, dueUs, { prefix })

  test("the second waits for the first", () => {
    expect(filled([alike(1, 900_000), alike(2, 910_000)])).toEqual({ 1: 300 })
    expect(filled([alike(1, 900_000), alike(2, 910_000)], { hopeful: true })).toEqual({ 1: 300 })
  })

  test("unless it can be done at once and might be late after it", () => {
    expect(filled([alike(1, 150_000), alike(2, 199_999)])).toEqual({ 1: 300, 2: 300 })
    expect(filled([alike(1, 150_000), alike(2, 200_000)])).toEqual({ 1: 300 })
    const large = prompt(2, 700, 199_999, { prefix })
    expect(filled([alike(1, 150_000), large])).toEqual({ 1: 300 })
  })

  test("the first due lends its turn to the one under way, for what both begin with", () => {
    const begun = () => Object.assign(alike(1, 900_000), { computed: 16 })
    expect(filled([begun(), alike(2, 500_000)])).toEqual({ 1: 144 })
    expect(filled([begun(), alike(2, 500_000), alike(3, 500_000)])).toEqual({ 1: 144 })
  })
})

describe("requests that were turned down and may come back", () => {
  test("begin only where KV is to spare for all of them", () => {
    const two = () => [prompt(1, 99, 900_000), prompt(2, 99, 900_000)]
    expect(filled(two(), { hopeful: true, spareKvTokens: 224 })).toEqual({ 1: 99, 2: 99 })
    expect(filled(two(), { hopeful: true, spareKvTokens: 223 })).toEqual({ 1: 99 })
    // So that anything runs at all, the least there is.
    expect(filled(two(), { hopeful: true, spareKvTokens: 111 })).toEqual({ 1: 2 })
  })

  test("take KV from others, not from each other", () => {
    const begun = Object.assign(prompt(2, 500, 900_000), { computed: 400 })
    const given = { hopeful: true, maxSequences: 1, maxBatchUs: 16_000 }
    // There is one sequence.
    expect(filled([prompt(1, 100, 800_000), begun], given)).toEqual({ 2: 100 })
    const hopeless = [Object.assign(prompt(3, 500, 900_000), { computed: 400 })]
    expect(filled([prompt(1, 100, 800_000)], { ...given, hopeless })).toEqual({ 1: 100 })
  })
})

test("where nothing fits, the least chunk of the first prompt runs", () => {
  const given = { minChunkTokens: 64, maxBatchUs: 1000 }
  expect(filled([prompt(1, 500, 20_000), prompt(2, 500, 21_000)], given)).toEqual({ 1: 65 })
})
