/** `--peer`: gateways on other machines before the same engines, of which this one hears, and which hear of it. */

import type { Registry } from "prom-client"
import type { PeerAddress } from "../config/peers.ts"
import { PEER_PORT, readPeerSecret } from "../config/peers.ts"
import { UserError, userError } from "../errors.ts"
import { Peers } from "../fleet/peers/peers.ts"
import { keepTogether, SharedResponses } from "../http/responses/shared-store.ts"
import { ResponseStore } from "../http/responses/store.ts"
import { answerRates } from "../serve/shared-rates.ts"
import { alone } from "../siblings/alone.ts"
import { Hub } from "../siblings/hub.ts"
import type { Siblings } from "../siblings/siblings.ts"
import { registerPeers } from "../telemetry/peer-gauges.ts"
import type { ApiOptions } from "./api-options.ts"
import type { BackendOptions } from "./backend-options.ts"
import type { Reporter } from "./reporter.ts"

export interface PeersSetup {
  peers: readonly PeerAddress[]
  file: string | undefined
  listen: { host: string; port: number }
  secret: string
}

type PeerOptions = Pick<ApiOptions, "host" | "port"> &
  Pick<BackendOptions, "peer" | "peerFile" | "peerPort" | "peerSecret">

/** null: there are none. Throws UserError for options that cannot be meant. */
export function peersOf({
  host,
  port,
  peer = [],
  peerFile,
  peerPort,
  peerSecret,
}: PeerOptions): PeersSetup | null {
  if (peer.length === 0 && peerFile === undefined && peerPort === undefined) {
    if (peerSecret === undefined) return null
    throw new UserError("--peer-secret is of a gateway with peers: name them (--peer), or give a --peer-port")
  }
  if (peerSecret === undefined)
    throw new UserError(
      "peers need a secret that all of them have: give it with --peer-secret env:NAME or file:PATH",
    )
  const own = peerPort ?? PEER_PORT
  if (own === port && port !== 0)
    throw new UserError(`--peer-port ${own} is --port as well: peers have a port of their own`)
  const secret = readPeerSecret(peerSecret, process.env)
  return { peers: peer, file: peerFile, listen: { host, port: own }, secret }
}

/** Throws UserError where there is nothing to tell of. */
export function checkPeers(setup: PeersSetup | null, hasBackends: boolean): void {
  if (setup !== null && !hasBackends)
    throw new UserError(
      "--peer is of a gateway, and there are no backends: give them (--backend), or leave it out",
    )
}

/** `processes`: that serve here; `apps`: most classes. */
export async function openPeers(
  setup: PeersSetup,
  parts: { hub: Hub; processes: number; apps: number },
  reporter: Reporter,
): Promise<Peers> {
  const log = (message: string, level: "warn" | "info") => reporter.log[level](message)
  try {
    return await Peers.open({ ...setup, ...parts, log })
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (error instanceof UserError || code === undefined) throw error
    const { host, port } = setup.listen
    if (code === "EADDRINUSE") throw userError("port_in_use", { host, port, option: "--peer-port" })
    throw userError(
      "cannot_listen",
      { host, port, option: "--peer-port", detail: code ?? message },
      { cause: error },
    )
  }
}

/** With all that it answers for the processes. */
export function hubOf({
  storedResponses: most,
  storedResponseBytes: mostBytes,
}: Pick<ApiOptions, "storedResponses" | "storedResponseBytes">): Hub {
  const hub = new Hub()
  keepTogether(hub, new ResponseStore({ most, mostBytes }))
  answerRates(hub)
  return hub
}

/** A gateway of one process with peers: they are to it as other processes of its own would be. */
export class SinglePeer {
  readonly siblings: Siblings
  readonly responses: SharedResponses
  readonly #setup: PeersSetup
  readonly #hub: Hub
  #peers: Peers | null = null

  constructor(setup: PeersSetup, options: Pick<ApiOptions, "storedResponses" | "storedResponseBytes">) {
    this.#setup = setup
    this.#hub = hubOf(options)
    this.siblings = alone(this.#hub)
    this.responses = new SharedResponses(
      this.siblings,
      options.storedResponses > 0 && options.storedResponseBytes > 0,
    )
  }

  async open(apps: number, onClose: (close: () => Promise<void>) => void, reporter: Reporter): Promise<void> {
    const peers = await openPeers(this.#setup, { hub: this.#hub, processes: 1, apps }, reporter)
    onClose(async () => peers.close())
    this.#peers = peers
  }

  register(registry: Registry): void {
    if (this.#peers !== null) registerPeers(registry, this.#peers)
  }
}
