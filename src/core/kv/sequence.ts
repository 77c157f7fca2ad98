/** What one request holds of the KV, or held when it ended. */
import type { RequestId } from "../protocol.ts"
import type { BlockOwner } from "./blocks.ts"

export interface Sequence extends BlockOwner {
  id: RequestId
  /** Tokens that its blocks were taken for. */
  tokens: number
  /** The request's own list: grows as its output fills blocks. */
  prefix: readonly number[]
  /** Leading blocks that are computed: others may share them. */
  indexed: number
  session: number
  /** Its session is not likely to come back. */
  spent: boolean
  /** Leading blocks that requests of other sessions were found to have, too: of use even when it is spent. */
  common: number
}

/** Whose prefix can be shared, and how much of it. */
export interface PrefixMatch {
  from: RequestId
  tokens: number
}
