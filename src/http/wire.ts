/** Gateways on the HTTP port: a request to upgrade makes its connection one of the wire protocol, over which a gateway asks this
 * replica for offers and gives it jobs. */
import type { IncomingMessage } from "node:http"
import type { Duplex } from "node:stream"
import type { FastifyInstance } from "fastify"
import { UserError, userError } from "../errors.ts"
import type { ReplicaHost } from "../replica/host.ts"
import type { ServiceHost } from "../serve/service.ts"
import { WireServer } from "../wire/server.ts"
import { UPGRADE_PATH, UPGRADE_PROTOCOL } from "../wire/upgrade.ts"
import { errorBody } from "./errors.ts"
import { checkHost, type HostRules } from "./hosts.ts"

/** Other upgrades are not meant for this server: such requests (Java's client offers h2c with each) are answered as they are. */
export function isWireUpgrade({ url, headers }: IncomingMessage): boolean {
  return url === UPGRADE_PATH && headers.upgrade === UPGRADE_PROTOCOL
}

export function wireUpgrade(
  app: FastifyInstance,
  host: ServiceHost,
  live: { readonly hosts: HostRules | null },
): void {
  const streams = new Set<Duplex>()
  app.server.on("upgrade", (request: IncomingMessage, stream: Duplex, head: Buffer) => {
    stream.on("error", () => stream.destroy())
    let replica: ReplicaHost
    try {
      if (live.hosts !== null) checkHost(request.headers.host, live.hosts)
      host.tenants.identify(request.headers)
      replica = replicaOf(host)
    } catch (error) {
      refuse(stream, error)
      return
    }
    stream.write(
      `HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: ${UPGRADE_PROTOCOL}\r\n\r\n`,
    )
    if (head.length > 0) stream.unshift(head)
    streams.add(stream)
    stream.on("close", () => streams.delete(stream))
    const { classes } = host.service!
    new WireServer(stream, replica, { classes })
  })
  app.addHook("preClose", async () => {
    for (const stream of streams) stream.destroy()
  })
}

function replicaOf(host: ServiceHost): ReplicaHost {
  const { refusal, service } = host
  if (refusal !== null) throw refusal
  const replica = service?.front.replica
  if (replica) return replica
  throw new UserError(
    "This server has other processes compute, and no planner of its own to answer offers; give it as openai=URL.",
    {
      status: 404,
      code: "unknown_url",
    },
  )
}

function refuse(stream: Duplex, error: unknown): void {
  const known = error instanceof UserError ? error : userError("engine_failed", { detail: String(error) })
  const body = JSON.stringify(errorBody(known))
  stream.end(
    `HTTP/1.1 ${known.status} Refused\r\ncontent-type: application/json\r\n` +
      `content-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n${body}`,
  )
}
