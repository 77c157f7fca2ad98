/** The engine that a suite runs over, open anew in each test, and what it is asked to do. */
import { afterEach, beforeEach } from "vitest"
import type { EngineLimits } from "../core/protocol.ts"
import { Script } from "./engine.script.ts"
import type { Engine, Sampling } from "./port.ts"

export interface SuiteSubject {
  name: string
  /** Token by token the same result however a request is batched (docs/design.md, Engine). */
  open(sizes: Pick<EngineLimits, "maxSequences" | "unifiedKv" | "kvTokens">): Promise<Engine>
  /** An end-of-generation token. */
  endToken: number
}

export const SUITE_CONTEXT_TOKENS = 256
export const SUITE_BATCH_TOKENS = 128
export const SEQUENCES = 4

export class EngineAtHand {
  readonly subject: SuiteSubject
  readonly unifiedKv: boolean
  engine!: Engine
  run!: Script

  /** Within a `describe`: before and after each of its tests. */
  constructor(subject: SuiteSubject, unifiedKv: boolean) {
    this.subject = subject
    this.unifiedKv = unifiedKv
    beforeEach(() => this.open())
    afterEach(() => this.engine.close())
  }

  async open(kvTokens = SEQUENCES * SUITE_CONTEXT_TOKENS): Promise<void> {
    const { subject, unifiedKv } = this
    this.engine = await subject.open({ maxSequences: SEQUENCES, unifiedKv, kvTokens })
    this.run = new Script(this.engine)
  }

  /** What the engine answers to a prompt alone, in one piece. */
  async alone(prompt: Int32Array, count: number, sampling: Partial<Sampling> = {}): Promise<number[]> {
    const { run } = this
    const id = run.open(prompt, { ignoreEos: true, ...sampling })
    await run.step([run.all(id)])
    for (let i = 1; i < count; i++) await run.step([run.all(id)])
    const tokens = run.output(id)
    await run.drop(id)
    return tokens
  }
}
