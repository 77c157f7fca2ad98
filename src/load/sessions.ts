/** Turns of one conversation in a trace, joined to a session: what a plan sends is one request of several rounds. */
import type { PromptPrefix, Trace, TraceRow } from "./trace.ts"

/** How lengths are cut down to the model at hand. */
export interface Scaling {
  /** All lengths are divided by this. */
  scale: number
  /** Longest history + prompt + output of a round after that. */
  maxSequenceTokens: number
}

/** A length of at least one token, divided. */
export const scaledTokens = (tokens: number, scale: number): number => Math.max(1, Math.round(tokens / scale))

export interface TraceRound {
  /** New in this round: what the session's history does not hold yet. */
  promptTokens: number
  outputTokens: number
  /** After the previous round's answer has ended. The trace says only when rounds arrived, so this is the time from
   * arrival to arrival: rounds come later than they did by the time of the answer. */
  delayMs: number
}

export interface TraceSession {
  /** When its first round arrived. */
  atMs?: number
  rounds: TraceRound[]
  /** Of the first round's prompt; later rounds share their session's history. */
  prefix?: PromptPrefix
}

/** All sessions, in order of time and unscaled; turns that do not fit are left out. A turn whose prompt does not hold its
 * whole history (it was cut or rewritten) starts a session of its own. */
export function sessionsOf(trace: Trace, { scale, maxSequenceTokens }: Scaling): TraceSession[] {
  const sessions: TraceSession[] = []
  /** Session, length of its history and last arrival, by the name of its latest turn. */
  const open = new Map<string, { session: TraceSession; history: number; atMs: number }>()
  for (const row of trace.rows) {
    const needed = scaledTokens(row.promptTokens, scale) + scaledTokens(row.outputTokens, scale)
    if (needed > maxSequenceTokens) continue
    const history = row.promptTokens + row.outputTokens
    const parent = row.chat?.parent == null ? undefined : open.get(row.chat.parent)
    const added = row.promptTokens - (parent?.history ?? 0)
    let session: TraceSession
    if (parent !== undefined && added >= 1) {
      session = parent.session
      session.rounds.push({
        promptTokens: added,
        outputTokens: row.outputTokens,
        delayMs: row.atMs! - parent.atMs,
      })
      // A second answer to the same turn is another session.
      open.delete(row.chat!.parent!)
    } else {
      session = sessionOf(row)
      sessions.push(session)
    }
    if (row.chat !== undefined) open.set(row.chat.id, { session, history, atMs: row.atMs! })
  }
  return sessions
}

function sessionOf(row: TraceRow): TraceSession {
  return {
    ...(row.atMs !== undefined && { atMs: row.atMs }),
    rounds: [{ promptTokens: row.promptTokens, outputTokens: row.outputTokens, delayMs: 0 }],
    ...(row.prefix !== undefined && { prefix: row.prefix }),
  }
}
