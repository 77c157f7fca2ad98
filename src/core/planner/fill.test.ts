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

/** Its first token is due at this time. */
function prompt(id: number, promptTokens: number, dueUs: number): LiveRequest {
  const slo = { ttftUs: dueUs, ttftSlowdown: 0, tpotUs: 1e9, thinkingTpotUs: 1e9, maxGapUs: Infinity }
  return liveOf(id, { promptTokens, maxOutputTokens: 1, slo })
}

/** Learnt from one arrival, as good as exactly. */
function slackOf(slackUs: number): ArrivalSlack {
  const slack = new ArrivalSlack()
  slack.observe(slackUs)
  return slack
}

interface Given {
  margin?: number
  arrivalSlackUs?: number
  /** A decode with this TPOT whose next token is due then. */
  decode?: { tpotUs: number; dueUs: number }
  hopeful?: boolean
}

/** Tokens of each request in the batch. */
function filled(prompts: LiveRequest[], { margin = 0, arrivalSlackUs, decode, hopeful }: Given = {}) {
  const context = contextOf(limits, { margin })
  const requests = [...prompts]
  if (decode !== undefined) {
    const { tpotUs, dueUs } = decode
    const slo = { ttftUs: 1, ttftSlowdown: 0, tpotUs, thinkingTpotUs: tpotUs, maxGapUs: Infinity }
    const running = liveOf(0, { slo })
    context.kv.attach(0, [], -1, null)
    context.kv.grow(0, 100)
    running.computed = 100
    running.emit(1, -1, 0, () => {})
    requests.unshift(Object.assign(running, { dueUs }))
  }
  const work = emptyWork()
  if (hopeful) for (const request of prompts) request.tier = "bestEffort"
  sortWork(requests, work)
  if (hopeful) work.hopeful.push(...prompts)
  if (arrivalSlackUs !== undefined) {
    work.arrivalSlack = slackOf(arrivalSlackUs)
  }
  const batch = new BatchBuilder(context)
  batch.reset()
  fillBatch(batch, work, { ...DEFAULT_OPTIONS, margin }, 0)
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
    expect(filled(prompts(), { arrivalSlackUs: 20_000 })).toEqual({ 1: 300, 2: 400 })
  })

  test("can wait for a part of it: it ends after eight times their slack", () => {
    const slack = slackOf(5000)
    const room = (8 * slack.us - 5000) / 100
    expect(room).toBeLessThan(700)
    expect(filled(prompts(), { arrivalSlackUs: 5000 })).toEqual({ 1: 300, 2: Math.floor(room) - 300 })
  })

  test("can hardly wait: a prompt goes whole, since pieces cost steps, and nothing more", () => {
    expect(filled(prompts(), { arrivalSlackUs: 1 })).toEqual({ 1: 300 })
  })

  test("can hardly wait: of one that takes longer than a longest batch, two steps' worth", () => {
    expect(filled([prompt(1, 960, 900_000)], { arrivalSlackUs: 1 })).toEqual({ 1: 52 })
  })
})
