/** Tells systemd how the server is, as a unit of `Type=notify` waits for it: sd_notify's protocol, one datagram a message.
 * Node has no sockets for datagrams within a machine, so libc's are used. */
import koffi from "koffi"

const AF_UNIX = 1
const SOCK_DGRAM = 2
const SOCK_CLOEXEC = 0o2000000
const MSG_NOSIGNAL = 0x4000
const MOST_PATH_BYTES = 107

export class Systemd {
  readonly #send: (text: string) => void
  #watchdog: NodeJS.Timeout | undefined
  /** What it was told last; null: not that the server is ready. */
  #ready: string | null = null

  /** Null where no systemd waits: not started by one, or as another type of unit. `warn` is told where it cannot be reached. */
  static of(env: NodeJS.ProcessEnv, warn: (message: string) => void): Systemd | null {
    const { NOTIFY_SOCKET: path, WATCHDOG_USEC: watchdogUs } = env
    if (path === undefined || path === "") return null
    // Workers are not what systemd waits for.
    for (const name of ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"]) delete env[name]
    try {
      return new Systemd(sender(path), Number(watchdogUs ?? 0) / 1000)
    } catch (error) {
      warn(`systemd cannot be told that the server is ready: ${(error as Error).message}`)
      return null
    }
  }

  /** To `send`, in place of a socket. */
  static telling(send: (text: string) => void): Systemd {
    return new Systemd(send, 0)
  }

  private constructor(send: (text: string) => void, watchdogMs: number) {
    this.#send = send
    // Twice as often as it wants to hear. An event loop that stands still says nothing.
    if (watchdogMs > 0) this.#watchdog = setInterval(() => send("WATCHDOG=1"), watchdogMs / 2).unref()
  }

  status(text: string): void {
    this.#send(`STATUS=${oneLine(text)}`)
  }

  ready(text: string): void {
    this.#ready = text
    this.#send(`READY=1\nSTATUS=${oneLine(text)}`)
  }

  /** Does `work`, which reads the config again; systemd waits for its end before it says that the unit is reloaded. A server that
   * is not ready yet is not made so by that. */
  reloading(work: () => void): void {
    if (this.#ready === null) {
      work()
      return
    }
    this.#send(`RELOADING=1\nMONOTONIC_USEC=${process.hrtime.bigint() / 1000n}`)
    work()
    this.ready(this.#ready)
  }

  /** It may take as long as the unit says; the watchdog is no longer fed by the one that it watched. */
  stopping(text: string): void {
    this.#ready = null
    this.#send(`STOPPING=1\nSTATUS=${oneLine(text)}`)
  }

  close(): void {
    clearInterval(this.#watchdog)
  }
}

function oneLine(text: string): string {
  return text.replaceAll("\n", " ")
}

function sender(path: string): (text: string) => void {
  if (process.platform !== "linux") throw new Error("there is a NOTIFY_SOCKET, but this is no Linux")
  const libc = koffi.load(null)
  const socket = libc.func("int socket(int domain, int type, int protocol)")
  const sendto = libc.func(
    "int64_t sendto(int fd, const uint8_t *bytes, size_t length, int flags, const uint8_t *to, uint32_t size)",
  )
  const fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0) as number
  if (fd < 0) throw new Error("no socket can be opened")
  const to = address(path)
  return (text) => {
    const bytes = Buffer.from(text)
    sendto(fd, bytes, bytes.length, MSG_NOSIGNAL, to, to.length)
  }
}

/** A sockaddr_un; `@name` is a name in no folder. */
function address(path: string): Buffer {
  const name = Buffer.from(path.startsWith("@") ? `\0${path.slice(1)}` : path)
  if (name.length > MOST_PATH_BYTES) throw new Error(`the path ${path} is too long`)
  // In the machine's own order of bytes.
  return Buffer.concat([new Uint8Array(Uint16Array.of(AF_UNIX).buffer), name])
}
