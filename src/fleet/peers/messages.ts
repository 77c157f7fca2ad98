/** What gateways on several machines say to each other, in the frames of src/wire: a schema for each message, checked where it
 * arrives. A change of meaning is a new version: gateways of two versions tell each other nothing. */
import { z } from "zod"
import type { Greeting } from "../../wire/channel.ts"

export const PEER_VERSION = 1
export const PEER_PROTOCOL = "slos-serve-peers"

/** Processes of one gateway. */
const MOST_PROCESSES = 1024

const text = z.string().max(300)
const id = z.number().int().positive()
const from = z.number().int().min(0).max(MOST_PROCESSES)

const schema = z.discriminatedUnion("type", [
  /** `gateway`: a number that it has drawn at its start. Of other versions only the first three are known. */
  z.object({ type: z.literal("hello"), protocol: text, version: z.number(), gateway: text.catch("") }),
  /** It hangs up. */
  z.object({ type: z.literal("refused"), why: text }),
  /** By its process of that number. `clockUs`: when this was sent, on the clock of the times in it. */
  z.object({
    ...{ type: z.literal("told"), from, clockUs: z.number() },
    words: z.array(z.object({ topic: text, word: z.unknown() })),
  }),
  /** That process of it is gone, and all that it had. */
  z.object({ type: z.literal("left"), from }),
  z.object({ type: z.literal("alive") }),
  /** By what all its processes have together. */
  z.object({ type: z.literal("said"), words: z.array(z.object({ topic: text, word: z.unknown() })) }),
  z.object({ type: z.literal("ask"), id, what: text, asked: z.unknown() }),
  /** `json`: what it has; null: it has nothing. */
  z.object({ type: z.literal("answered"), id, json: z.string().nullable() }),
])

export type PeerMessage = z.output<typeof schema>
export type ToldMessage = Extract<PeerMessage, { type: "told" }>

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
    refused: (why) => ({ type: "refused", why }),
  }
}
