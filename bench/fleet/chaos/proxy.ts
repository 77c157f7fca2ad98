/** A TCP proxy before one replica: cuts its connections, and flips bits in what passes. */
import { once } from "node:events"
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net"

/** The first bytes of a connection are its HTTP upgrade; frames are after it. */
const UPGRADE_BYTES = 2000

export class FaultProxy {
  readonly #server: Server
  readonly #pairs = new Set<readonly [Socket, Socket]>()
  /** Chunks that are still to be damaged. */
  #damage = 0

  private constructor(port: number) {
    this.#server = createServer((client) => this.#join(client, connect({ port, host: "127.0.0.1" })))
  }

  static async before(port: number): Promise<FaultProxy> {
    const proxy = new FaultProxy(port)
    await once(proxy.#server.listen(0, "127.0.0.1"), "listening")
    return proxy
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  cut(): void {
    for (const [client, server] of this.#pairs) {
      client.resetAndDestroy()
      server.resetAndDestroy()
    }
  }

  /** One bit of the next chunk, whichever way it goes. */
  corrupt(): void {
    this.#damage++
  }

  close(): void {
    this.cut()
    this.#server.close()
  }

  #join(client: Socket, server: Socket): void {
    const pair = [client, server] as const
    this.#pairs.add(pair)
    for (const [from, to] of [pair, [server, client]] as const) {
      let passed = 0
      from.setNoDelay(true)
      from.on("data", (chunk: Buffer) => {
        const damaged = passed > UPGRADE_BYTES && this.#damage > 0
        passed += chunk.length
        to.write(damaged ? this.#damaged(chunk) : chunk)
      })
      from.on("error", () => to.destroy())
      from.on("close", () => {
        to.destroy()
        this.#pairs.delete(pair)
      })
    }
  }

  #damaged(chunk: Buffer): Buffer {
    this.#damage--
    const wrong = Buffer.from(chunk)
    const at = Math.floor(Math.random() * wrong.length)
    wrong[at]! ^= 1 << Math.floor(Math.random() * 8)
    return wrong
  }
}
