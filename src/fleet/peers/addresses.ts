/** Where other gateways may be just now: those of the options, those of a file that may change, and all that their names stand for. */
import { z } from "zod"
import { readListFile } from "../../config/list-file.ts"
import { type PeerAddress, parsePeer } from "../../config/peers.ts"
import { addressesOf, type Lookup } from "../backends/addresses.ts"

export interface AddressesOptions {
  peers: readonly PeerAddress[]
  /** Holds more of them: a list, or a map with `peers`. */
  file?: string | undefined
  refreshMs: number
  lookup?: Lookup | undefined
  onChange: (addresses: readonly PeerAddress[]) => void
  warn: (message: string) => void
}

const LIST = { name: "peers", schema: z.array(z.string()), example: "gateway-2:8090" }

export class PeerAddresses {
  readonly #options: AddressesOptions
  #fromFile: readonly PeerAddress[] = []
  /** What a name stood for when it was last known. */
  readonly #found = new Map<string, readonly string[]>()
  /** Said of a name or the file, once, until it changes. */
  readonly #said = new Map<string, string>()
  #timer: NodeJS.Timeout | null = null
  #refreshing: Promise<void> = Promise.resolve()

  private constructor(options: AddressesOptions) {
    this.#options = options
  }

  /** Throws UserError for a file that cannot be meant. Names that are not known are no error: they may come to be. */
  static async open(options: AddressesOptions): Promise<PeerAddresses> {
    const addresses = new PeerAddresses(options)
    const { file, refreshMs } = options
    if (file !== undefined) addresses.#fromFile = await read(file)
    await addresses.refresh()
    addresses.#timer = setInterval(() => void addresses.refresh(), refreshMs)
    addresses.#timer.unref()
    return addresses
  }

  close(): void {
    if (this.#timer !== null) clearInterval(this.#timer)
  }

  /** Names and the file, looked at anew. */
  refresh(): Promise<void> {
    this.#refreshing = this.#refreshing.then(() => this.#refresh())
    return this.#refreshing
  }

  async #refresh(): Promise<void> {
    const { file } = this.#options
    if (file !== undefined) await this.#reread(file)
    const named = [...this.#options.peers, ...this.#fromFile]
    const all = await Promise.all(named.map((peer) => this.#lookUp(peer)))
    this.#options.onChange(all.flat())
  }

  async #lookUp({ host, port }: PeerAddress): Promise<PeerAddress[]> {
    try {
      this.#found.set(host, await addressesOf(host, this.#options.lookup))
      this.#said.delete(host)
    } catch (error) {
      // A headless service without a ready pod is no name. Those that are connected stay so.
      const { code = "" } = error as NodeJS.ErrnoException
      this.#say(host, `the name ${host} of peers is not known (${code}); it is looked up again`)
    }
    return (this.#found.get(host) ?? []).map((address) => ({ host: address, port }))
  }

  async #reread(file: string): Promise<void> {
    try {
      this.#fromFile = await read(file)
      this.#said.delete(file)
    } catch (error) {
      this.#say(file, `${(error as Error).message}; the peers stay as they are`)
    }
  }

  #say(about: string, message: string): void {
    if (this.#said.get(about) !== message) this.#options.warn(message)
    this.#said.set(about, message)
  }
}

async function read(path: string): Promise<PeerAddress[]> {
  const list = await readListFile(path, LIST)
  return list.map((one) => parsePeer(one, path))
}
