/** What KV requests without a promise may begin in. */
import { describe, expect, test } from "vitest"
import { OutputLengths } from "../learn/output-lengths.ts"
import { DEFAULT_OPTIONS } from "../options.ts"
import type { LiveRequest } from "../request.ts"
import { contextOf, LIMITS, liveOf } from "../testing.ts"
import { Admission } from "./admission.ts"
import { BatchBuilder } from "./batch-builder.ts"
import { MemoryForecast } from "./memory.ts"
import { Speculator } from "./speculation/speculator.ts"

const KV_TOKENS = 16_000
/** What the forecast may fill, less what is kept free for arrivals. */
const ROOM = KV_TOKENS * 0.985 * (1 - 0.055)
const PROMPT = 160

/** Outputs of app 0 have one to two hundred tokens. */
const outputLengths = new OutputLengths(1)
for (let i = 0; i < 300; i++) {
  outputLengths.grew(0, 0, 1 + (i % 200))
  outputLengths.ended(0, 1 + (i % 200))
}

function spareKv({ promised = 0, holding = 0, waiting = 0, unifiedKv = true }) {
  const limits = { ...LIMITS, kvTokens: KV_TOKENS, maxSequences: 128, unifiedKv }
  const context = contextOf(limits, { outputLengths })
  const request = (id: number) => liveOf(id, { promptTokens: PROMPT, maxOutputTokens: 200 })
  const decoding = (id: number): LiveRequest => {
    context.kv.attach(id, [], -1, null)
    context.kv.grow(id, PROMPT)
    const live = Object.assign(request(id), { computed: PROMPT })
    live.emit(1, -1, 0, () => {})
    return live
  }
  const decodes = Array.from({ length: promised }, (_, i) => decoding(i))
  const others = Array.from({ length: holding }, (_, i) => decoding(1000 + i))
  for (let i = 0; i < waiting; i++) others.push(request(2000 + i))
  const admission = new Admission(DEFAULT_OPTIONS)
  const running = { decodes, overdue: [], slackNeeded: 0, speculator: new Speculator(DEFAULT_OPTIONS) }
  admission.select(running, [], context, 0)
  const batch = new BatchBuilder(context)
  batch.reset()
  const spare = admission.spareKvTokens(others, batch)
  // Asking changes nothing.
  expect(admission.spareKvTokens(others, batch)).toBeCloseTo(spare, 6)
  return spare
}

function peakOf(count: number): number {
  const forecast = new MemoryForecast()
  const held = Math.ceil((PROMPT + 1) / LIMITS.blockTokens) * LIMITS.blockTokens
  for (let i = 0; i < count; i++) forecast.add(held, 199, outputLengths.outlook(0, 1))
  return forecast.peakTokens()
}

describe("spare KV", () => {
  test("is what the promised and those that hold some will not need at their worst time", () => {
    expect(spareKv({})).toBeCloseTo(ROOM, 6)
    expect(spareKv({ promised: 20 })).toBeCloseTo(ROOM - peakOf(20), 6)
    expect(spareKv({ promised: 12, holding: 8 })).toBeCloseTo(ROOM - peakOf(20), 6)
  })

  test("counts that some of those end before the others have grown", () => {
    const toTheEnd = 30 * (PROMPT + 1 + outputLengths.remaining(0, 1, 200))
    expect(spareKv({ holding: 30 })).toBeGreaterThan(ROOM - toTheEnd)
    expect(spareKv({ holding: 30 })).toBeLessThan(ROOM - 30 * PROMPT)
  })

  test("is not less for those that wait", () => {
    expect(spareKv({ holding: 8, waiting: 50 })).toBe(spareKv({ holding: 8 }))
  })

  test("has no end where every request has a stream of its own", () => {
    expect(spareKv({ promised: 3, unifiedKv: false })).toBe(Infinity)
  })
})
