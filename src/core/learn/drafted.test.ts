/** A drafter that had no idea made the step shorter, not the machine faster; and asking it costs nothing. */
import { expect, test } from "vitest"
import { shapeOf, stepUs } from "../cost.ts"
import type { Batch } from "../protocol.ts"
import { Replica } from "../replica.ts"

const cost = {
  pieces: [{ step: 5000, tokens: 1000, specSteps: 2000 }],
  residualSigma: 0,
  fastPassTokens: 1,
  unifiedKv: true,
}
const limits = {
  kvTokens: 4096,
  blockTokens: 16,
  maxSequences: 8,
  maxBatchTokens: 256,
  contextTokens: 512,
  minChunkTokens: 1,
  unifiedKv: true,
}

test.each([true, false])("calibration counts what was drafted (said: %s)", (said) => {
  const replica = new Replica({ limits, cost, policy: "vllm", apps: 1, options: { fixedDraft: 3 } })
  const slo = { ttftUs: 1e9, ttftSlowdown: 0, tpotUs: 1e9, thinkingTpotUs: 1e9, maxGapUs: Infinity }
  const request = { id: 1, app: 0, session: -1, promptTokens: 20, maxOutputTokens: 100, prefix: [] }
  replica.handle({ type: "arrived", request: { ...request, slo, tier: "slo", thinking: false } }, 0)
  let [nowUs, asked] = [0, 0]
  for (let step = 0; step < 20; step++) {
    const run = replica.poll(nowUs).find((effect) => effect.type === "run") as { batch: Batch }
    const items = run.batch.items.map((item) => ({ ...item, draft: 0 }))
    asked += run.batch.items[0]!.draft
    const durationUs = stepUs(cost, shapeOf(items, cost))
    nowUs += durationUs
    const result = { id: 1, tokens: 1, stopped: false, answeringFrom: -1, ...(said && { drafted: 0 }) }
    replica.handle({ type: "stepDone", batch: run.batch.number, durationUs, results: [result] }, nowUs)
    replica.check()
  }
  expect(asked).toBeGreaterThan(50)
  const [decodes, , drafted] = replica.snapshot(nowUs).calibration
  // A step in which nothing was drafted is one of plain decodes.
  expect(decodes).toBeCloseTo(1)
  if (said) expect(drafted).toBeCloseTo(1)
  else expect(drafted).toBeLessThan(0.8)
})

/** Decode steps of a lone request in which it was asked to draft, of the last 200 of 1,500. Every `every`th
 * time the drafter has an idea, of which `accepted` tokens are right. */
function askedAtLast(every: number, accepted: number) {
  const apps = { policy: "slos-serve", apps: 1, options: { speculation: "on" } } as const
  const replica = new Replica({
    limits,
    cost: { ...cost, pieces: [{ step: 12_000, tokens: 9000 }] },
    ...apps,
  })
  const slo = { ttftUs: 1e9, ttftSlowdown: 0, tpotUs: 1e9, thinkingTpotUs: 1e9, maxGapUs: Infinity }
  let [nowUs, id, live, asks, asked] = [0, 0, false, 0, 0]
  for (let step = 0; step < 1500; step++) {
    if (!live) {
      const request = { id: ++id, app: 0, session: -1, promptTokens: 20, maxOutputTokens: 400, prefix: [] }
      replica.handle({ type: "arrived", request: { ...request, slo, tier: "slo", thinking: false } }, nowUs)
    }
    const run = replica.poll(nowUs).find((effect) => effect.type === "run") as { batch: Batch }
    const item = run.batch.items[0]!
    const drafted = item.draft > 0 && ++asks % every === 0 ? item.draft : 0
    if (item.draft > 0 && step >= 1300) asked++
    const tokens = item.sample ? 1 + Math.min(drafted, accepted) : 0
    const results = [{ id, tokens, stopped: false, answeringFrom: -1, drafted }]
    nowUs += 20_000
    replica.handle({ type: "stepDone", batch: run.batch.number, durationUs: 20_000, results }, nowUs)
    live = replica.snapshot(nowUs).waiting + replica.snapshot(nowUs).running > 0
  }
  return { asked, speculation: replica.snapshot(nowUs).speculation[0]! }
}

test("a drafter that seldom has an idea, but good ones, is asked on; one with bad ones is not", () => {
  const good = askedAtLast(20, 8)
  expect(good.asked).toBeGreaterThan(190)
  expect(good.speculation.hitRate).toBeLessThan(0.1)
  expect(good.speculation.acceptance).toBeGreaterThan(0.8)
  const bad = askedAtLast(20, 0)
  expect(bad.speculation.acceptance).toBeLessThan(0.5)
  expect(bad.asked).toBeLessThan(100)
})
