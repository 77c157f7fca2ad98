/** What a grammar host is told and answers. One call at a time; a first answer comes when it has started. */
import type { RequestId } from "../../core/protocol.ts"
import type { Vocabulary } from "./vocabulary.ts"

export interface HostData {
  vocabulary: Vocabulary
  /** One integer: the place, among those of a call, of the request that is being followed. */
  progress: SharedArrayBuffer
}

/** A request, from where this host knows it. */
export interface Followed {
  id: RequestId
  grammar: string
  /** Output tokens that the host has not seen. */
  tokens: number[]
  /** Tokens that may come next, to be tried; null: no mask is wanted, only that the host is brought up to date. */
  draft: readonly number[] | null
}

export type HostCall = { type: "compile"; grammar: string } | { type: "follow"; requests: Followed[] }

export type HostMessage = HostCall & {
  /** Grammars and requests that are over. */
  drop: { grammars: string[]; requests: RequestId[] }
}

export type HostAnswer =
  | { ok: true /** Of the host, its copy of the vocabulary included. */; memoryBytes: number }
  /** Masks of all requests, end to end, and how many each has; none where some are wanted: it has left its grammar. */
  | { ok: true; masks: Int32Array<ArrayBuffer>; counts: number[] }
  | { ok: false; message: string }
