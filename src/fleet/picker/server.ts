/** The endpoint picker as a gRPC server: Envoy's external processing, health, TLS, and an end in order. */
import type { SecureServerOptions } from "node:http2"
import {
  experimental,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type UntypedServiceImplementation,
} from "@grpc/grpc-js"
import { HealthImplementation } from "grpc-health-check"
import { UserError, userError } from "../../errors.ts"
import { Exchange, type ExchangeParts } from "./exchange.ts"
import { refusal } from "./messages.ts"
import { loadService, type ProcessingRequest, type ProcessingResponse, SERVICE } from "./wire.ts"

export interface TlsFiles {
  certificate: string
  key: string
  /** Clients must show a certificate that this one signed; null: none is asked for. */
  clientAuthority: string | null
}

export interface PickerServerOptions {
  host: string
  /** 0: a free one. */
  port: number
  tls: TlsFiles | null
  bodyLimit: number
  /** Something failed that should not: the request got a 500. */
  onFault(error: unknown): void
}

type Call = ServerDuplexStream<ProcessingRequest, ProcessingResponse>

/** As the endpoint picker protocol names them, and "" for all. */
const READINESS = ["", "readiness", SERVICE]
const LIVENESS = "liveness"
/** Certificates are renewed while the server runs. */
const CERTIFICATE_REFRESH_MS = 60_000
/** What a message has beside a body. */
const MESSAGE_OVERHEAD_BYTES = 1 << 20
const ANY_NUMBER = 1e9

export class PickerServer {
  readonly #server: Server
  readonly #health = new HealthImplementation({ [LIVENESS]: "SERVING" })
  readonly #options: PickerServerOptions
  readonly #parts: ExchangeParts
  readonly #open = new Map<Call, Exchange>()

  constructor(parts: ExchangeParts, options: PickerServerOptions) {
    this.#parts = parts
    this.#options = options
    this.#server = new Server({
      "grpc.max_receive_message_length": options.bodyLimit + MESSAGE_OVERHEAD_BYTES,
      "grpc.max_send_message_length": -1,
      // A gateway that vanished without a word is noticed.
      "grpc.keepalive_time_ms": 30_000,
    })
    bearResets(this.#server)
    this.#health.addToServer(this.#server)
    const process = (call: Call) => this.#serve(call)
    this.#server.addService(loadService(), { process } as UntypedServiceImplementation)
    this.setReady(false)
  }

  get streams(): number {
    return this.#open.size
  }

  /** Answers the port. Throws UserError. */
  async listen(): Promise<number> {
    const { host, port, tls } = this.#options
    const at = host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`
    return new Promise((resolve, reject) => {
      this.#server.bindAsync(
        at,
        tls === null ? ServerCredentials.createInsecure() : secured(tls),
        (error, bound) => {
          if (error === null) return resolve(bound)
          const taken = error.message.includes("EADDRINUSE")
          const detail = error.message.replace(/^.*?Error: /s, "").slice(0, 200)
          reject(
            taken
              ? userError("port_in_use", { host, port, option: "--port" })
              : userError("cannot_listen", { host, port, option: "--port", detail }),
          )
        },
      )
    })
  }

  setReady(ready: boolean): void {
    for (const service of READINESS) this.#health.setStatus(service, ready ? "SERVING" : "NOT_SERVING")
  }

  /** No new streams; those there are go on to their end, for `timeoutMs` at most. What is held then is refused, and
   * streams that Envoy can go on without are left. Answers how many were broken off. */
  async drain(timeoutMs: number): Promise<number> {
    this.setReady(false)
    const ended = new Promise<void>((resolve) => this.#server.tryShutdown(() => resolve()))
    let timer: NodeJS.Timeout | undefined
    const over = new Promise<"over">((resolve) => {
      timer = setTimeout(() => resolve("over"), timeoutMs)
    })
    const outcome = await Promise.race([ended, over])
    clearTimeout(timer)
    this.#parts.flow.close()
    if (outcome !== "over") return 0
    for (const [call, exchange] of this.#open) if (exchange.mayLeave) call.end()
    const flushed = new Promise((resolve) => setTimeout(resolve, 100).unref())
    await Promise.race([ended, flushed])
    const broken = this.#open.size
    this.#server.forceShutdown()
    return broken
  }

  #serve(call: Call): void {
    const write = (message: ProcessingResponse) => {
      if (!call.writable || call.cancelled) return
      // Envoy reads slowly: no more is taken from it until it has read.
      if (call.write(message)) return
      call.pause()
      call.once("drain", () => call.resume())
    }
    const exchange = new Exchange(this.#parts, write, () => call.end())
    this.#open.set(call, exchange)
    const closed = () => {
      if (!this.#open.delete(call)) return
      exchange.closed()
      call.end()
    }
    call.on("data", (message: ProcessingRequest) => {
      try {
        exchange.receive(message)
      } catch (error) {
        this.#options.onFault(error)
        const fault = new UserError("The endpoint picker had an error; its log has the details.", {
          status: 500,
        })
        write(refusal(fault, null, null))
        closed()
      }
    })
    call.on("end", closed)
    call.on("cancelled", closed)
    call.on("error", closed)
  }
}

/** Envoy ends the stream of each request by resetting it, and keeps all of them on one connection. Node takes 1,000 resets at once
 * and 33 a second of a connection (against clients that open streams to reset them), then ends it: each request under way fails
 * with a 500. The library has no option for it. */
export function bearResets(server: Server): void {
  const { commonServerOptions } = server as unknown as { commonServerOptions: SecureServerOptions }
  Object.assign(commonServerOptions, {
    streamResetBurst: ANY_NUMBER,
    streamResetRate: ANY_NUMBER,
  } satisfies SecureServerOptions)
}

function secured({ certificate, key, clientAuthority }: TlsFiles): ServerCredentials {
  const files = new experimental.FileWatcherCertificateProvider({
    certificateFile: certificate,
    privateKeyFile: key,
    ...(clientAuthority !== null && { caCertificateFile: clientAuthority }),
    refreshIntervalMs: CERTIFICATE_REFRESH_MS,
  })
  const authority = clientAuthority === null ? null : files
  return experimental.createCertificateProviderServerCredentials(files, authority, authority !== null)
}
