/** What the processes of one address and their parent say to each other (`serve --gateways`). Plain data, as structured clones. */

/** Something that all others are told: of what, and what. */
export interface Told {
  topic: string
  word: unknown
}

/** What was told at one time, as bytes: the hub hands them on as they are. */
export type ToldBytes = Uint8Array

/** What came of a question. `error`: for people. */
export type Answer = { value: unknown } | { error: string }

/** From a process. */
export type FromSibling =
  /** It serves. `lines`, `values`: what a start says to people, and to a log. */
  | { type: "ready"; lines: readonly string[]; values: Record<string, unknown> }
  /** It cannot start. `user`: for a reason that its operator can put right. */
  | { type: "failed"; message: string; user: boolean }
  | { type: "tell"; told: ToldBytes }
  /** All that it has, as it was asked for. */
  | { type: "whole"; id: number; told: ToldBytes }
  /** It has begun to listen: what the others have it does not know. */
  | { type: "again" }
  | { type: "ask"; id: number; what: string; asked: unknown }
  | { type: "answered"; id: number; answer: Answer }

/** `whole`: it is all that this one has, and what it told before is over. */
export interface ToldBy {
  from: number
  told: ToldBytes
  whole?: boolean
}

/** To a process. */
export type ToSibling =
  | { type: "told"; all: readonly ToldBy[] }
  /** It is to say all that it has; `common`: what all know as it does, too. */
  | { type: "whole"; id: number; common: boolean }
  /** That one, here or elsewhere, is gone; the one that comes in its place has its number, and knows nothing of it. */
  | { type: "left"; from: number }
  | { type: "ask"; id: number; what: string; asked: unknown }
  | { type: "answered"; id: number; answer: Answer }
  /** As if the process had been sent it. `config`: the text of its config file, where that is to be read again. */
  | { type: "signal"; signal: NodeJS.Signals; config?: string }

/** A question that each process answers, and the hub sends on to all. */
export interface AskedOfAll {
  what: string
  asked: unknown
}

export const OF_ALL = "of all"
/** Each answers that: it does not stand still. */
export const ALIVE = "alive"
