/** A prompt that admission chooses from, and which of two goes first where not all fit. */
import type { LiveRequest } from "../request.ts"
import type { PrefixGroup } from "./prefix-groups.ts"

export interface Candidate {
  request: LiveRequest
  /** Computing it starts here, and takes so many tokens of its own. */
  start: number
  owed: number
  /** What it begins with in common with others that wait: counted once. */
  group: PrefixGroup | null
  /** KV tokens that it alone would newly take for its prompt. */
  ownTokens: number
  stream: number
  kept: boolean
  /** It is not, for lack of KV; else for lack of time. */
  lacksKv?: boolean
  /** What its tenant will have been served with it, kept to its end. */
  tokens: number
}

/** Rounds of a session that has missed already go first: keeping their SLO saves no request. Then the largest for what
 * they are worth, and of equal ones the last come. */
export function goesBefore(a: Candidate, b: Candidate): boolean {
  if (a.request.sessionMissed !== b.request.sessionMissed) return a.request.sessionMissed
  const [ofA, ofB] = [size(a), size(b)]
  return ofA > ofB || (ofA === ofB && a.request.order > b.request.order)
}

/** What a request would take, for its worth: its own tokens, and its part of what it shares. */
function size({ owed, group, request }: Candidate): number {
  const shared = group === null ? 0 : (group.end - group.start) / Math.max(1, group.kept)
  return (owed + shared) / (request.spec.worth ?? 1)
}
