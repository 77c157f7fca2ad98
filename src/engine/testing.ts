/** The fake engine as the suites open it. */
import type { EngineLimits } from "../core/protocol.ts"
import { SUITE_BATCH_TOKENS, SUITE_CONTEXT_TOKENS } from "./engine-at-hand.suite.ts"
import { type FakeOptions, fakeEngine } from "./fake/engine.ts"
import type { Engine } from "./port.ts"

export function suiteFake(
  sizes: Pick<EngineLimits, "maxSequences" | "unifiedKv" | "kvTokens">,
  more: Partial<FakeOptions>,
): Engine {
  return fakeEngine({
    cost: { pieces: [{ step: 100 }], residualSigma: 0.1, fastPassTokens: 64, unifiedKv: sizes.unifiedKv },
    limits: {
      ...sizes,
      blockTokens: 16,
      maxBatchTokens: SUITE_BATCH_TOKENS,
      contextTokens: SUITE_CONTEXT_TOKENS,
      minChunkTokens: 64,
    },
    time: "real",
    ...more,
  })
}
