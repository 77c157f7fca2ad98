/** Proposes what a request may say next. The engine's model verifies all proposals of a step in one pass,
 * so a drafter decides how fast an answer comes, never what it says. */
import type { BatchItem, RequestId } from "../core/protocol.ts"

/** `lookup`: what followed the same words earlier in the request. `draftModel`: a smaller model file of the
 * same vocabulary. */
export type Speculation = "off" | "lookup" | { draftModel: string }

/** Proposed tokens per request, in order; a request without an entry has none. Null: the drafter is still reading
 * what came before, so that nothing could be tried. */
export type Drafts = ReadonlyMap<RequestId, readonly number[] | null>

export const NO_DRAFTS: Drafts = new Map()

export interface Drafter {
  /** At most `item.draft` tokens for each item: fewer, or none, where it has no idea. */
  propose(items: readonly BatchItem[]): Drafts | Promise<Drafts>
  close(): void
}
