/** Plays Envoy's part against a picker: a client of the gRPC service that sends the pieces of a request as Envoy does. */
import { type ClientDuplexStream, credentials, makeGenericClientConstructor } from "@grpc/grpc-js"
import { loadService, type ProcessingRequest, type ProcessingResponse } from "./wire.ts"

type Call = ClientDuplexStream<ProcessingRequest, ProcessingResponse>

export class EnvoyPart {
  readonly #client: InstanceType<ReturnType<typeof makeGenericClientConstructor>>

  /** `address`: the picker's, "host:port". */
  constructor(address: string) {
    const Client = makeGenericClientConstructor(loadService(), "ExternalProcessor")
    this.#client = new Client(address, credentials.createInsecure())
  }

  open(): EnvoyStream {
    const process = this.#client.process!.bind(this.#client) as unknown as () => Call
    return new EnvoyStream(process())
  }

  close(): void {
    this.#client.close()
  }
}

/** One HTTP request of Envoy's. */
export class EnvoyStream {
  readonly call: Call
  readonly #told: ProcessingResponse[] = []
  #waiting: (() => void) | null = null
  #over = false

  constructor(call: Call) {
    this.call = call
    const wake = () => this.#waiting?.()
    call.on("data", (message: ProcessingResponse) => {
      this.#told.push(message)
      wake()
    })
    for (const event of ["end", "error"] as const)
      call.on(event, () => {
        this.#over = true
        wake()
      })
  }

  say(message: ProcessingRequest | Record<string, unknown>): this {
    this.call.write(message as ProcessingRequest)
    return this
  }

  /** The next message; null when the stream is over. */
  async next(): Promise<ProcessingResponse | null> {
    while (this.#told.length === 0 && !this.#over)
      await new Promise<void>((resolve) => (this.#waiting = resolve))
    return this.#told.shift() ?? null
  }

  /** What has come so far. */
  get pending(): number {
    return this.#told.length
  }
}

/** `mode`, `responseMode`: how bodies are sent (BODY_MODE). */
export function headersMessage(
  headers: Record<string, string>,
  more: Partial<ProcessingRequest> & { endOfStream?: boolean; mode?: number; responseMode?: number } = {},
): ProcessingRequest {
  const { endOfStream = false, mode, responseMode, ...rest } = more
  const modes = mode === undefined ? {} : { requestBodyMode: mode, responseBodyMode: responseMode ?? 0 }
  return {
    requestHeaders: { headers: headerMap(headers), endOfStream },
    ...(mode !== undefined && { protocolConfig: modes }),
    ...rest,
  }
}

export const headerMap = (headers: Record<string, string>) => ({
  headers: Object.entries(headers).map(([key, value]) => ({ key, rawValue: Buffer.from(value) })),
})

export const bodyMessage = (body: string, endOfStream = true): ProcessingRequest => ({
  requestBody: { body: Buffer.from(body), endOfStream },
})
