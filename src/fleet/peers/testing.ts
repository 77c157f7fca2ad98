/** For tests: gateways that only tell each other, on one machine, each with processes of its own. */
import type { PeerAddress } from "../../config/peers.ts"
import { Hub } from "../../siblings/hub.ts"
import { linked } from "../../siblings/testing.ts"
import { Channel } from "../../wire/channel.ts"
import type { LoadWord, WholeWord } from "../backends/shared-load.ts"
import type { TwinSpec } from "../sent.ts"
import { greetingOf, PEER_VERSION, type PeerMessage, readPeerMessage } from "./messages.ts"
import { Peers, type PeersOptions } from "./peers.ts"
import { connectTo, peerKey } from "./secure.ts"

export const SECRET = "a secret of some gateways"
export const HERE = "127.0.0.1"

const slo = { ttftUs: 1e6, ttftSlowdown: 0, tpotUs: Infinity, thinkingTpotUs: Infinity, maxGapUs: Infinity }
export const LOAD_SPEC: TwinSpec = {
  ...{ id: 3, app: 1, session: -1, arrivalUs: 5e6, promptTokens: 100, cachedTokens: 0, maxOutputTokens: 10 },
  ...{ prefix: [], tier: "slo" as const, thinking: false, slo },
}
/** One of each sort. */
export const LOAD_WORDS: LoadWord[] = [
  { type: "held", id: 3, spec: LOAD_SPEC, deadlineUs: 6e6 },
  { type: "sent", id: 3, spec: LOAD_SPEC, forced: true },
  { type: "cached", id: 3, tokens: 4 },
  { type: "tokens", id: 3, tokens: 1 },
  { type: "ended", id: 3, stopped: true },
  { type: "saw", seen: { app: 1, session: "s", seen: { prompt: 3, cached: 2, output: 1 } } },
]

/** One of each sort of what a process has. */
export const WHOLE_WORDS: WholeWord[] = [
  { type: "held", id: 3, spec: LOAD_SPEC, deadlineUs: 6e6 },
  {
    ...{ type: "underWay", id: 4, spec: LOAD_SPEC, forced: true, sentUs: 5.5e6 },
    ...{ computed: 40, tokens: 0, firstUs: null, late: false },
  },
  {
    ...{ type: "underWay", id: 5, spec: LOAD_SPEC, forced: false, sentUs: 5.5e6 },
    ...{ computed: 100, tokens: 7, firstUs: 5.8e6, late: true },
  },
]

export async function openPeersHere(
  ports: readonly number[],
  options: Partial<PeersOptions> = {},
  processes = 1,
) {
  const { hub, all } = linked(processes, new Hub())
  const said: string[] = []
  const peers = await Peers.open({
    ...{ hub, processes, apps: 2, secret: SECRET, listen: { host: HERE, port: 0 }, aliveMs: 100 },
    peers: ports.map((port): PeerAddress => ({ host: HERE, port })),
    log: (message) => said.push(message),
    ...options,
  })
  return { hub, all, peers, said }
}

export function told(...words: object[]): object {
  return { type: "told", from: 0, clockUs: 1, words }
}

export type Talk = Awaited<ReturnType<typeof talkTo>>

/** An end by hand, which has the secret. */
export async function talkTo(port: number, { version = PEER_VERSION } = {}) {
  const socket = connectTo({ host: HERE, port }, peerKey(SECRET))
  await new Promise((resolve) => socket.once("secureConnect", resolve))
  const greeted: PeerMessage[] = []
  const greeting = greetingOf("0123")
  let end = (_why: string) => {}
  const ended = new Promise<string>((resolve) => {
    end = resolve
  })
  const channel = new Channel<PeerMessage, PeerMessage>(socket, {
    greeting: { ...greeting, hello: () => ({ ...greeting.hello(), version }) },
    read: readPeerMessage,
    onMessage: (message) => {
      greeted.push(message)
      if (message.type === "refused") end(message.why)
    },
    onEnd: (_reason, detail) => end(detail),
  })
  channel.send({ type: "begins", turn: 1, processes: [0] })
  // Else it would be taken for dead after half a second, in which a busy machine may not come to what the test asks.
  const alive = setInterval(() => channel.send({ type: "alive" }), 50)
  return {
    greeted,
    ended,
    close() {
      clearInterval(alive)
      socket.destroy()
    },
    send: (message: object) => channel.send(message as PeerMessage),
  }
}
