/** Turns of one conversation in a trace, joined to a session: what a plan sends is one request of several rounds. */
import type { PromptPrefix, Trace, TraceRow } from "./trace.ts"

/** Requests longer than this (prompt + output, unscaled) are left out: the models' context (DESIGN §7). */
export const SEQUENCE_LIMIT_TOKENS = 8192

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

/** All sessions within the sequence limit, in order of time. A turn whose prompt does not hold its whole history (it
 * was cut or rewritten), or that would go beyond the limit, starts a session of its own. */
export function sessionsOf(trace: Trace): TraceSession[] {
  const sessions: TraceSession[] = []
  /** Session, length of its history and last arrival, by the name of its latest turn. */
  const open = new Map<string, { session: TraceSession; history: number; atMs: number }>()
  for (const row of trace.rows) {
    const history = row.promptTokens + row.outputTokens
    if (history > SEQUENCE_LIMIT_TOKENS) continue
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
