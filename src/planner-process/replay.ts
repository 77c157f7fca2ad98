/** Makes every decision of a recording again, with fresh cores: the same events must give the same plans. */
import { closeSync, openSync, readSync } from "node:fs"
import { isDeepStrictEqual } from "node:util"
import type { Batch } from "../core/protocol.ts"
import { Replica } from "../core/replica.ts"
import { UserError } from "../errors.ts"
import { FrameError, FrameReader } from "../wire/frames.ts"
import { batchIn, RECORDING_VERSION, type Recorded, sumOf } from "./recording.ts"

export interface ReplayResult {
  sessions: number
  events: number
  /** Decisions that had a batch. */
  plans: number
  /** The first that is not the same; null: all are. */
  difference: ReplayDifference | null
  /** Recorded by this version of SLOs-Serve. */
  program: string
  /** It was cut off, as by the end of its process: all before that was replayed. */
  cut: boolean
}

export interface ReplayDifference {
  engine: string
  /** On the engine's clock. */
  atUs: number
  /** What differs, in a line. */
  what: string
  recorded: Batch | null
  replayed: Batch | null
}

/** Read at a time: a recording of a day is larger than a process. */
const PIECE_BYTES = 2 ** 20

interface Session {
  name: string
  replica: Replica
}

/** Throws UserError for a file that is no recording. */
export function replayRecording(path: string): ReplayResult {
  const frames = framesOf(path)
  const { value: head, done } = frames.next()
  if (done || head.type !== "recording") throw notOne(path, "it does not begin as one")
  if (head.version !== RECORDING_VERSION)
    throw notOne(path, `it is of version ${head.version}, this program reads ${RECORDING_VERSION}`)
  const replay = new Replay(path)
  let difference: ReplayDifference | null = null
  let next = frames.next()
  for (; !next.done && difference === null; next = frames.next()) difference = replay.take(next.value)
  const { sessions, events, plans } = replay
  return { sessions, events, plans, difference, program: head.program, cut: next.done === true && next.value }
}

class Replay {
  sessions = 0
  events = 0
  plans = 0
  readonly #path: string
  readonly #live = new Map<number, Session>()

  constructor(path: string) {
    this.#path = path
  }

  /** What it makes of one frame that is not as it was, or null. */
  take(recorded: Recorded): ReplayDifference | null {
    if (recorded.type === "recording") throw notOne(this.#path, "it begins twice")
    if (recorded.type === "began") {
      const { session, engine, config } = recorded
      this.sessions++
      this.#live.set(session, { name: engine.name, replica: new Replica(config) })
      return null
    }
    const session = this.#live.get(recorded.session)
    if (session === undefined) throw notOne(this.#path, `session ${recorded.session} has no beginning`)
    if (recorded.type === "ended") {
      this.#live.delete(recorded.session)
      return null
    }
    if (recorded.type === "event") this.events++
    else if (recorded.batch !== null) this.plans++
    try {
      if (recorded.type === "decided") return differenceOf(recorded, session)
      session.replica.handle(recorded.event, recorded.atUs)
      return null
    } catch (error) {
      // Another core may not even take what this one was told.
      const { name } = session
      return {
        ...{ engine: name, atUs: recorded.atUs, recorded: null, replayed: null },
        what: `the core fails (${(error as Error).message})`,
      }
    }
  }
}

function differenceOf(
  { atUs, effects: sum, batch: recorded }: Extract<Recorded, { type: "decided" }>,
  { name, replica }: Session,
): ReplayDifference | null {
  const effects = replica.poll(atUs)
  const replayed = batchIn(effects)
  const found = { engine: name, atUs, recorded, replayed }
  const what = changeOf(recorded, replayed)
  if (what !== null) return { ...found, what }
  return sumOf(effects) === sum
    ? null
    : { ...found, what: "the plans are the same, what else was told is not" }
}

/** The first field that differs, or null. */
function changeOf(recorded: Batch | null, replayed: Batch | null): string | null {
  if (isDeepStrictEqual(recorded, replayed)) return null
  if (recorded === null) return `batch ${replayed?.number} was decided, where none was`
  if (replayed === null) return `no batch was decided, where batch ${recorded.number} was`
  const at = recorded.items.findIndex((item, i) => !isDeepStrictEqual(item, replayed.items[i]))
  if (at >= 0)
    return `batch ${recorded.number}, item ${at + 1}: ${told(recorded.items[at])} was ${told(replayed.items[at])}`
  if (recorded.items.length !== replayed.items.length)
    return `batch ${recorded.number} had ${recorded.items.length} requests and now has ${replayed.items.length}`
  return `batch ${recorded.number}: ${told({ ...recorded, items: [] })} was ${told({ ...replayed, items: [] })}`
}

const told = (value: unknown) => JSON.stringify(value) ?? "nothing"

/** The frames of a file, and at its end whether one is cut off. */
function* framesOf(path: string): Generator<Recorded, boolean> {
  const file = openedOf(path)
  const reader = new FrameReader()
  const piece = Buffer.alloc(PIECE_BYTES)
  try {
    for (let bytes = readSync(file, piece); bytes > 0; bytes = readSync(file, piece))
      for (const frame of reader.push(Buffer.from(piece.subarray(0, bytes)))) {
        if (typeof (frame as Recorded | null)?.type !== "string") throw notOne(path, "a frame is no message")
        yield frame as Recorded
      }
    return !reader.empty
  } catch (error) {
    if (error instanceof FrameError) throw notOne(path, error.message)
    throw error
  } finally {
    closeSync(file)
  }
}

function openedOf(path: string): number {
  try {
    const file = openSync(path, "r")
    // A folder can be opened, but not read.
    readSync(file, Buffer.alloc(1), { position: 0 })
    return file
  } catch (error) {
    throw notOne(path, `it cannot be read (${(error as NodeJS.ErrnoException).code})`)
  }
}

function notOne(path: string, why: string): UserError {
  return new UserError(
    `${path} is no recording of a planner: ${why}; make one with slos-serve planner --record`,
  )
}
