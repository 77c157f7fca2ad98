/** A drafter that had no idea made the step shorter, not the machine faster. */
import { expect, test } from "vitest"
import { shapeOf, stepUs } from "./cost.ts"
import { Replica } from "./replica.ts"
import type { Batch } from "./types.ts"

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
  const slo = { ttftUs: 1e9, ttftSlowdown: 0, tpotUs: 1e9, thinkingTpotUs: 1e9 }
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
  const [decodes] = replica.snapshot(nowUs).calibration
  if (said) expect(decodes).toBeCloseTo(1)
  else expect(decodes).toBeLessThan(0.8)
})
