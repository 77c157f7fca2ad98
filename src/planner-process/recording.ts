/** What the cores of a planner were told and what they decided, in a file: so that every plan can be made again
 * (`slos-serve planner replay`). Frames of the wire (`wire/frames.ts`), in the order in which things happened. */
import { createWriteStream, type WriteStream } from "node:fs"
import { crc32 } from "node:zlib"
import type { Batch, Effect, Event } from "../core/protocol.ts"
import type { Replica, ReplicaConfig } from "../core/replica.ts"
import { encodeFrame } from "../wire/frames.ts"
import type { EngineMessage } from "../wire/planner/messages.ts"

export const RECORDING_VERSION = 1

/** One frame of a recording. Sessions are counted from 1; times are µs on their engines' clocks. */
export type Recorded =
  | { type: "recording"; version: number; program: string }
  | { type: "began"; session: number; engine: EngineMessage; config: ReplicaConfig }
  | { type: "event"; session: number; atUs: number; event: Event }
  /** `effects`: a check sum of all of them; `batch`: the decision among them, null where there was none. */
  | { type: "decided"; session: number; atUs: number; effects: number; batch: Batch | null }
  | { type: "ended"; session: number }

/** Of one session. */
export interface Recorder {
  began(engine: EngineMessage, config: ReplicaConfig): void
  happened(atUs: number, event: Event): void
  decided(atUs: number, effects: readonly Effect[]): void
  ended(): void
}

/** What a core is to its driver. */
export type Core = Pick<Replica, "handle" | "poll">

/** A core whose events and decisions are recorded. */
export function recorded(core: Core, recorder: Recorder | null): Core {
  if (recorder === null) return core
  return {
    handle(event, nowUs) {
      recorder.happened(nowUs, event)
      core.handle(event, nowUs)
    },
    poll(nowUs) {
      const effects = core.poll(nowUs)
      recorder.decided(nowUs, effects)
      return effects
    },
  }
}

export class RecordingFile {
  readonly #stream: WriteStream
  #sessions = 0

  /** `program`: which version writes it. `onError`: the file cannot be written; once. */
  constructor(path: string, program: string, onError: (message: string) => void) {
    this.#stream = createWriteStream(path)
    this.#stream.once("error", (error) => onError(error.message))
    this.#write({ type: "recording", version: RECORDING_VERSION, program })
  }

  /** For one more session. */
  recorder(): Recorder {
    const session = ++this.#sessions
    return {
      began: (engine, config) => this.#write({ type: "began", session, engine, config }),
      happened: (atUs, event) => this.#write({ type: "event", session, atUs, event }),
      decided: (atUs, effects) => {
        this.#write({ type: "decided", session, atUs, effects: sumOf(effects), batch: batchIn(effects) })
      },
      ended: () => this.#write({ type: "ended", session }),
    }
  }

  close(): Promise<void> {
    return new Promise((done) => this.#stream.end(done))
  }

  #write(recorded: Recorded): void {
    if (!this.#stream.destroyed) this.#stream.write(encodeFrame(recorded))
  }
}

/** A check sum: equal effects have equal ones. */
export function sumOf(effects: readonly Effect[]): number {
  return crc32(encodeFrame(effects as object))
}

export function batchIn(effects: readonly Effect[]): Batch | null {
  const run = effects.find((effect) => effect.type === "run")
  return run === undefined ? null : run.batch
}
