/** A replica of our own on another machine: a server that is asked, on its HTTP port, to speak the wire protocol. Its planner
 * answers offers itself. */
import { type ClientRequest, request as httpRequest, type IncomingMessage } from "node:http"
import { request as httpsRequest } from "node:https"
import type { Socket } from "node:net"
import { UPGRADE_PATH, UPGRADE_PROTOCOL } from "../wire/upgrade.ts"
import { RenewedHost, type RenewedOptions } from "./renewed-host.ts"

export interface RemoteReplicaOptions extends RenewedOptions {
  /** Scheme, host, port, and the path that its API is below. */
  url: string
  /** Sent as `authorization: Bearer`. */
  apiKey?: string | null
  connectMs?: number
}

const CONNECT_MS = 2_000
const MOST_ERROR_BYTES = 2_000

export class RemoteReplica extends RenewedHost {
  readonly #options: RemoteReplicaOptions
  #request: ClientRequest | null = null
  #socket: Socket | null = null

  constructor(options: RemoteReplicaOptions) {
    super(options)
    this.#options = options
    this.begin()
  }

  giveUp(detail: string): void {
    this.wire?.giveUp(detail)
  }

  protected begin(): void {
    const { url, apiKey, connectMs = CONNECT_MS } = this.#options
    const to = new URL(`${url}${UPGRADE_PATH}`)
    const headers = {
      connection: "Upgrade",
      upgrade: UPGRADE_PROTOCOL,
      ...(apiKey != null && { authorization: `Bearer ${apiKey}` }),
    }
    const make = to.protocol === "https:" ? httpsRequest : httpRequest
    const request = make(to, { headers, timeout: connectMs })
    this.#request = request
    let settled = false
    const failed = (detail: string) => {
      if (settled) return
      settled = true
      request.destroy()
      this.over(detail)
    }
    request.on("upgrade", (_response, socket, head) => {
      settled = true
      this.#upgraded(socket as Socket, head)
    })
    request.on("response", (response) => void refusalOf(response).then(failed))
    request.on("timeout", () => failed(`it does not answer within ${connectMs} ms`))
    request.on("error", (error) => failed(`it cannot be reached (${error.message})`))
    request.end()
  }

  protected async finish(): Promise<void> {
    this.#request?.destroy()
    this.#socket?.destroy()
  }

  protected disconnected(detail: string): void {
    this.over(detail)
  }

  #upgraded(socket: Socket, head: Buffer): void {
    this.#socket = socket
    socket.setTimeout(0)
    socket.setNoDelay(true)
    if (head.length > 0) socket.unshift(head)
    this.connect(socket)
  }
}

/** Why it answers with a response and not with an upgrade. */
async function refusalOf(response: IncomingMessage): Promise<string> {
  let text = ""
  response.setEncoding("utf8")
  for await (const piece of response) {
    text += piece
    if (text.length > MOST_ERROR_BYTES) break
  }
  const message = /"message"\s*:\s*"((?:[^"\\]|\\.)*)"/.exec(text)?.[1] ?? text.slice(0, 200)
  return `it answers ${response.statusCode}: ${message}`
}
