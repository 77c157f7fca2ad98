/** For tests: gateways that only tell each other, on one machine, each with processes of its own. */
import type { PeerAddress } from "../../config/peers.ts"
import { Hub } from "../../siblings/hub.ts"
import { linked } from "../../siblings/testing.ts"
import type { LoadWord } from "../backends/shared-load.ts"
import type { TwinSpec } from "../sent.ts"
import { Peers, type PeersOptions } from "./peers.ts"

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
