/** Server processes of a benchmark: started once, warmed, and stopped by signal while others are measured, so
 * that an idle server cannot burn the CPU of a measured one. */
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { createWriteStream } from "node:fs"
import { createServer } from "node:net"
import { fileURLToPath } from "node:url"
import type { Target } from "../../src/load/client.ts"
import type { System } from "./systems.ts"

// Killed by a signal, a bench would leave its servers behind, stopped and with their ports taken: "exit" comes only if it
// is asked for.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, () => process.exit(130))

export class Server {
  readonly system: Pick<System, "name" | "kind">
  readonly target: Target
  private readonly process: ChildProcess
  private log = ""

  /** Throws where the port is taken: another's server would be measured. */
  static async start(
    system: Pick<System, "name" | "kind">,
    command: readonly string[],
    port: number,
    logPath: string,
  ): Promise<Server> {
    const probe = createServer().listen(port, "127.0.0.1")
    await once(probe, "listening")
    await once(probe.close(), "close")
    return new Server(system, command, port, logPath)
  }

  private constructor(
    system: Pick<System, "name" | "kind">,
    command: readonly string[],
    port: number,
    logPath: string,
  ) {
    this.system = system
    this.target = { url: `http://127.0.0.1:${port}`, kind: system.kind, model: "bench" }
    const [program, ...args] = command
    this.process = spawn(program!, args, {
      stdio: ["ignore", "pipe", "pipe"],
      cwd: fileURLToPath(new URL("../..", import.meta.url)),
    })
    process.once("exit", () => this.process.kill("SIGKILL"))
    const file = createWriteStream(logPath)
    for (const stream of [this.process.stdout!, this.process.stderr!]) {
      stream.pipe(file, { end: false })
      stream.on("data", (part: Buffer) => {
        this.log = (this.log + part.toString()).slice(-2000)
      })
    }
    this.process.on("error", (error) => {
      this.log += error.message
    })
  }

  /** Waits until the model is loaded (and profiled); learns the model's name. */
  async ready(timeoutMs: number): Promise<void> {
    const endMs = performance.now() + timeoutMs
    const paths = this.system.kind === "slos-serve" ? "/ready" : "/health"
    while (performance.now() < endMs) {
      if (this.process.exitCode !== null || this.process.pid === undefined) break
      const ok = await fetch(this.target.url + paths, { signal: AbortSignal.timeout(2000) }).then(
        (response) => response.ok,
        () => false,
      )
      if (ok) {
        const models = (await (await fetch(`${this.target.url}/v1/models`)).json()) as {
          data: { id: string }[]
        }
        this.target.model = models.data[0]!.id
        return
      }
      await new Promise((resolve) => setTimeout(resolve, 200))
    }
    throw new Error(`${this.system.name} did not become ready:\n${this.log}`)
  }

  get pid(): number {
    return this.process.pid!
  }

  get alive(): boolean {
    return this.process.exitCode === null && this.process.signalCode === null
  }

  pause(): void {
    this.process.kill("SIGSTOP")
  }

  resume(): void {
    this.process.kill("SIGCONT")
  }

  /** Resolves with its exit code and signal. */
  get exited(): Promise<[code: number | null, signal: NodeJS.Signals | null]> {
    return new Promise((resolve) => this.process.once("exit", (code, signal) => resolve([code, signal])))
  }

  async stop(): Promise<void> {
    if (!this.alive) return
    const ended = new Promise((resolve) => this.process.once("exit", resolve))
    this.resume()
    this.process.kill("SIGTERM")
    const timer = setTimeout(() => this.process.kill("SIGKILL"), 5000)
    await ended
    clearTimeout(timer)
  }
}
