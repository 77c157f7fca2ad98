/** What is remembered of an arrival, so that it can be played again: plain numbers, no text and no token. */
import type { Slo, Tier } from "../core/protocol.ts"

/** How it ended. `refused`: for a full queue, or for want of a server; its prompt was not read. `void`: it could not be
 * served anywhere, and no fleet has to. */
export const ENDS = ["live", "done", "cancelled", "failed", "refused", "void"] as const
export type ArrivalEnd = (typeof ENDS)[number]

export interface Arrival {
  /** When it reached the server, µs on the recorder's clock. */
  atUs: number
  /** Index of its SLO class. */
  app: number
  /** Tool session, or -1. */
  session: number
  /** 0: not known. */
  promptTokens: number
  /** Most it asked for; 0: what the context leaves. */
  maxOutputTokens: number
  /** Of the answer, thinking included; 0: not known. */
  outputTokens: number
  /** Of these, thinking. */
  thinkingTokens: number
  /** Prompt tokens whose KV was there already. */
  cachedTokens: number
  slo: Slo
  tier: Tier
  worth: number
  thinking: boolean
  end: ArrivalEnd
  /** When it ended, µs; 0 while it lives. */
  endUs: number
  /** Every SLO was kept; false while that is not known. */
  attained: boolean
}

/** What is known of it when it comes, and what when it ends. */
export type Arriving = Pick<
  Arrival,
  "atUs" | "app" | "session" | "maxOutputTokens" | "slo" | "tier" | "worth" | "thinking"
>
export type Ending = Pick<Arrival, "end" | "endUs"> &
  Partial<Pick<Arrival, "promptTokens" | "outputTokens" | "thinkingTokens" | "cachedTokens" | "attained">>

/** More than a prompt has. */
const MOST_BLOCKS = 2 ** 20

/** Hashes for the full blocks of a prompt and its answer: a session's rounds begin alike, and what was found in the cache of
 * other requests is taken to be what all of its class begin with. `nameOf` gives what it is told a small number; `own` is a
 * number that no other request of the play has. */
export function blocksOf(
  { app, session }: Pick<Arrival, "app" | "session">,
  { blocks, cached }: { blocks: number; cached: number },
  nameOf: (shared: string) => number,
  own: number,
): number[] {
  const common = nameOf(session >= 0 ? `session ${session}` : `app ${app}`)
  const shared = session >= 0 ? blocks : cached
  return Array.from({ length: blocks }, (_, at) =>
    at < shared ? common * MOST_BLOCKS + at : -1 - (own * MOST_BLOCKS + at),
  )
}
