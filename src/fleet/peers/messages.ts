/** What gateways on several machines say to each other, in the frames of src/wire: a schema for each message, checked where it
 * arrives. A change of meaning is a new version: gateways of two versions tell each other nothing. */
import { z } from "zod"
import type { Greeting } from "../../wire/channel.ts"

export const PEER_VERSION = 2
export const PEER_PROTOCOL = "slos-serve-peers"

/** Processes of one gateway at one time. */
export const MOST_PROCESSES = 1024

const text = z.string().max(300)
const id = z.number().int().positive()
/** Of each process that a gateway has had another. */
const from = z
  .number()
  .int()
  .min(0)
  .max(2 ** 40)
const words = z.array(z.object({ topic: text, word: z.unknown() }))

const schema = z.discriminatedUnion("type", [
  /** `gateway`: a number that it has drawn at its start. Of other versions only the first three are known. */
  z.object({ type: z.literal("hello"), protocol: text, version: z.number(), gateway: text.catch("") }),
  /** It hangs up; where it `moves`, what it has told goes on on another connection. */
  z.object({ type: z.literal("refused"), why: text, moves: z.boolean().catch(false) }),
  /** What it tells comes on this connection from now on, and on none of a lower turn. Of its processes there are these alone. */
  z.object({
    ...{ type: z.literal("begins"), turn: z.number().int().positive() },
    processes: z.array(from).max(MOST_PROCESSES),
  }),
  /** A piece of all that its process of that number has, the last but where there is `more`: what else that told is over. */
  z.object({ type: z.literal("whole"), from, clockUs: z.number(), words, more: z.boolean() }),
  /** All of it is to be told again. */
  z.object({ type: z.literal("again") }),
  /** By its process of that number. `clockUs`: when this was sent, on the clock of the times in it. */
  z.object({ type: z.literal("told"), from, clockUs: z.number(), words }),
  /** That process of it is gone, and all that it had. */
  z.object({ type: z.literal("left"), from }),
  z.object({ type: z.literal("alive") }),
  /** By what all its processes have together. */
  z.object({ type: z.literal("said"), words }),
  z.object({ type: z.literal("ask"), id, what: text, asked: z.unknown() }),
  /** `json`: what it has; null: it has nothing. */
  z.object({ type: z.literal("answered"), id, json: z.string().nullable() }),
])

export type PeerMessage = z.output<typeof schema>
export type ToldMessage = Extract<PeerMessage, { type: "told" }>
export type WholeMessage = Extract<PeerMessage, { type: "whole" }>

/** Throws for what is none. */
export function readPeerMessage(frame: unknown): PeerMessage {
  const parsed = schema.safeParse(frame)
  if (parsed.success) return parsed.data
  const { path, message } = parsed.error.issues[0]!
  throw new Error(`what it says makes no sense (${path.join(".") || "type"}: ${message.slice(0, 100)})`)
}

export function greetingOf(gateway: string): Greeting<PeerMessage> {
  return {
    hello: () => ({ type: "hello", protocol: PEER_PROTOCOL, version: PEER_VERSION, gateway }),
    refusalOf({ protocol, version }) {
      if (protocol !== PEER_PROTOCOL)
        return `one end speaks ${protocol.slice(0, 40)}, the other ${PEER_PROTOCOL}`
      if (version === PEER_VERSION) return null
      return `one end speaks version ${version} of what gateways tell each other, the other ${PEER_VERSION}: update one`
    },
    refused: (why) => ({ type: "refused", why, moves: false }),
  }
}
