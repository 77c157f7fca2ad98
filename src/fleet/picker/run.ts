/** An endpoint picker from its options to its end: endpoints, flow control, the gRPC server and the metrics port. */
import { createServer, type Server } from "node:http"
import type { AddressInfo } from "node:net"
import { performance } from "node:perf_hooks"
import type { SloClasses } from "../../config/slo-classes.ts"
import { userError } from "../../errors.ts"
import type { Chooser } from "./chooser.ts"
import { type Address, EndpointWatch } from "./endpoints.ts"
import { FlowControl, type FlowOptions } from "./flow-control.ts"
import { PickerMetrics } from "./metrics.ts"
import type { RewriteOptions } from "./rewrite.ts"
import { PickerServer, type TlsFiles } from "./server.ts"

export interface PickerOptions {
  host: string
  /** 0: a free one. */
  port: number
  /** Of /metrics and /health over HTTP; null: none. */
  metricsPort: number | null
  tls: TlsFiles | null
  endpoints: readonly Address[]
  endpointsFile: string | null
  classes: SloClasses
  flow: FlowOptions
  rewrite: RewriteOptions
  bodyLimit: number
  /** Endpoints named for a request, the picked one included: the others are for the gateway's retries. */
  named: number
  chooser: Chooser
  warn(message: string): void
}

interface Ports {
  port: number
  metricsPort: number | null
}

/** Names and the file are read again so often. */
const READ_AGAIN_MS = 1000

export class EndpointPicker {
  readonly #options: PickerOptions
  readonly #flow: FlowControl
  readonly #watch: EndpointWatch
  readonly #metrics: PickerMetrics
  readonly #server: PickerServer
  #web: Server | null = null

  constructor(options: PickerOptions) {
    this.#options = options
    const { chooser, flow, classes, rewrite, bodyLimit, named, warn } = options
    const nowUs = () => performance.now() * 1000
    // Without endpoints of one's own the gateway's word is taken for each request.
    const open = options.endpoints.length === 0 && options.endpointsFile === null
    this.#flow = new FlowControl(flow, chooser, nowUs, open)
    this.#watch = new EndpointWatch({ given: options.endpoints, file: options.endpointsFile }, warn)
    const gauges = {
      held: () => this.#flow.held,
      heldBytes: () => this.#flow.heldBytes,
      endpoints: () => this.#flow.endpoints.length,
      ejected: () => this.#flow.ejected,
      streams: () => this.#server.streams,
    }
    this.#metrics = new PickerMetrics(gauges, { process: options.metricsPort !== null })
    const epochMs = () => performance.timeOrigin + performance.now()
    const parts = { flow: this.#flow, metrics: this.#metrics, classes, rewrite, bodyLimit, named }
    const { host, port, tls } = options
    const onFault = (error: unknown) => warn(`unexpected error: ${(error as Error).stack ?? String(error)}`)
    this.#server = new PickerServer({ ...parts, nowUs, epochMs }, { host, port, tls, bodyLimit, onFault })
  }

  /** Answers the ports, that of the metrics null where there is none. It serves at once, and says that it is ready when `warm`
   * is over. Throws UserError. */
  async start(warm: () => Promise<void> = async () => {}): Promise<Ports> {
    const endpoints = await this.#watch.read()
    this.#flow.setEndpoints(endpoints)
    this.#watch.follow(READ_AGAIN_MS, (changed) => this.#changed(changed), endpoints)
    const metricsPort = await this.#listenWeb()
    const port = await this.#server.listen()
    await warm()
    this.#setReady(true)
    return { port, metricsPort }
  }

  get endpoints(): readonly string[] {
    return this.#flow.endpoints
  }

  get streams(): number {
    return this.#server.streams
  }

  /** Answers how many requests and responses were broken off when the time was over. */
  async stop(drainMs: number): Promise<number> {
    this.#setReady(false)
    const broken = await this.#server.drain(drainMs)
    this.#watch.close()
    this.#options.chooser.close()
    this.#web?.close()
    this.#web?.closeAllConnections()
    return broken
  }

  #ready = false

  #setReady(ready: boolean): void {
    this.#ready = ready
    this.#server.setReady(ready)
  }

  #changed(endpoints: string[]): void {
    this.#options.warn(`endpoints are now ${endpoints.join(", ") || "none"}`)
    this.#flow.setEndpoints(endpoints)
  }

  async #listenWeb(): Promise<number | null> {
    const { host, metricsPort: port } = this.#options
    if (port === null) return null
    const web = createServer(async (request, response) => {
      const path = (request.url ?? "").split("?", 1)[0]
      if (path === "/metrics") {
        const { registry } = this.#metrics
        response.setHeader("content-type", registry.contentType).end(await registry.metrics())
      } else if (path === "/health") response.writeHead(this.#ready ? 200 : 503).end()
      else response.writeHead(404).end("This port has /metrics and /health.\n")
    })
    this.#web = web
    await new Promise<void>((resolve, reject) => {
      web.once("error", ({ code = "", message }: NodeJS.ErrnoException) =>
        reject(
          code === "EADDRINUSE"
            ? userError("port_in_use", { host, port, option: "--metrics-port" })
            : userError("cannot_listen", { host, port, option: "--metrics-port", detail: code || message }),
        ),
      )
      web.listen(port, host, resolve)
    })
    return (web.address() as AddressInfo).port
  }
}
