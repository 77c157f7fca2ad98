/** Other gateways that are told what this one does, as /metrics show them. */
import { Counter, Gauge, type Registry } from "prom-client"

export interface PeerSource {
  readonly counts: {
    readonly connected: number
    readonly toldWords: number
    readonly heardWords: number
    readonly messages: number
  }
}

type Counts = PeerSource["counts"]

const COUNTERS: readonly (readonly [name: string, help: string, read: (counts: Counts) => number])[] = [
  [
    "slos_serve_peer_messages_total",
    "Messages to other gateways, once for each.",
    ({ messages }) => messages,
  ],
  [
    "slos_serve_peer_words_told_total",
    "What other gateways were told: requests that were sent, held or ended, tokens, places of sessions.",
    ({ toldWords }) => toldWords,
  ],
  [
    "slos_serve_peer_words_heard_total",
    "What other gateways told, likewise.",
    ({ heardWords }) => heardWords,
  ],
]

export function registerPeers(registry: Registry, source: PeerSource): void {
  const registers = [registry]
  new Gauge({
    ...{ name: "slos_serve_peers", help: "Other gateways that are connected.", registers },
    collect() {
      this.set(source.counts.connected)
    },
  })
  for (const [name, help, read] of COUNTERS)
    new Counter({
      ...{ name, help, registers },
      collect() {
        this.reset()
        this.inc(read(source.counts))
      },
    })
}
