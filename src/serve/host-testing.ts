/** For tests of fleets: a replica in this process on the fake engine. */
import { defaultSloClasses } from "../config/slo-classes.ts"
import type { CostModel } from "../core/cost.ts"
import type { EngineLimits } from "../core/protocol.ts"
import { fakeEngine } from "../engine/fake/engine.ts"
import type { Engine } from "../engine/port.ts"
import { ReplicaDriver } from "../replica/driver.ts"
import { InProcessHost } from "./in-process.ts"
import { Intake } from "./intake.ts"

export const HOST_LIMITS: EngineLimits = {
  ...{ kvTokens: 8192, blockTokens: 16, maxSequences: 16, maxBatchTokens: 256, contextTokens: 1024 },
  ...{ minChunkTokens: 1, unifiedKv: true },
}

export interface TestHostOptions {
  name?: string
  maxQueue?: number
  /** µs a step and a token. */
  stepUs?: number
  tokenUs?: number
  engine?: Engine
}

/** Its fake model says the same to the same prompt and seed. */
export function inProcessHost(options: TestHostOptions = {}): InProcessHost {
  const { name = "local", maxQueue = 1000, stepUs = 1000, tokenUs = 5 } = options
  const cost: CostModel = {
    ...{
      pieces: [{ step: stepUs, tokens: tokenUs }],
      residualSigma: 0.05,
      fastPassTokens: 1,
      unifiedKv: true,
    },
  }
  const limits = HOST_LIMITS
  const engine = options.engine ?? fakeEngine({ limits, cost, time: "real", outputTokens: 5000 })
  const apps = defaultSloClasses().all.length
  const driver = new ReplicaDriver({ engine, config: { limits, cost, policy: "slos-serve", apps, maxQueue } })
  return new InProcessHost(new Intake(engine, driver), name)
}
