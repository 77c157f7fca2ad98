/** Watches over process groups that this process starts: they end with it, also when it is killed. */
import { type ChildProcess, spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import { moduleBeside } from "../beside.ts"

const PROGRAM = fileURLToPath(moduleBeside(import.meta.url, "orphan-guard"))

export class OrphanGuard {
  readonly #groups = new Set<number>()
  #child: ChildProcess | null = null
  #closed = false

  constructor() {
    this.#start()
  }

  /** `group`: pid of its first process, started as the leader of its group (`detached`). */
  watch(group: number): void {
    this.#groups.add(group)
    this.#tell(`+${group}`)
  }

  forget(group: number): void {
    if (this.#groups.delete(group)) this.#tell(`-${group}`)
  }

  /** What is still watched is ended. */
  close(): void {
    this.#closed = true
    this.#child?.stdin?.end()
  }

  #start(): void {
    const child = spawn(process.execPath, [PROGRAM], {
      // No output of its own: it must hold no pipe open that a reader waits for.
      ...{ stdio: ["pipe", "ignore", "ignore"], detached: true },
    })
    this.#child = child
    child.unref()
    // Its end is seen below.
    child.stdin!.on("error", () => {})
    child.on("error", () => {})
    child.on("exit", () => {
      if (!this.#closed) setTimeout(() => this.#start(), 1000).unref()
    })
    for (const group of this.#groups) this.#tell(`+${group}`)
  }

  #tell(line: string): void {
    if (this.#child?.stdin?.writable) this.#child.stdin.write(`${line}\n`)
  }
}
