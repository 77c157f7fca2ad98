/** How far a study is: one line a running task and an estimate on a terminal, a line a finished task elsewhere. */
import pc from "picocolors"
import type { PoolEvent } from "../study/pool.ts"

export interface StudyProgress {
  /** `left`: stages after this one. */
  stage(name: string, labels: string[], left: number): void
  event(event: PoolEvent): void
  end(): void
}

export function createProgress(stream: NodeJS.WriteStream): StudyProgress {
  let labels: string[] = []
  let title = ""
  let done = 0
  let later = ""
  /** Of each task, and of those still to do and those done here: about how much there is to compute. */
  let work: number[] = []
  let todo = 0
  let computed = 0
  let startedMs = performance.now()
  const running = new Map<number, string>()
  let drawn = 0

  const erase = () => {
    if (drawn > 0) stream.write(`\u001b[${drawn}A\u001b[0J`)
    drawn = 0
  }
  const draw = () => {
    if (!stream.isTTY) return
    erase()
    const lines = [
      `${pc.bold(title)} ${done}/${labels.length}${eta()}`,
      ...[...running].map(([index, text]) => `  ${labels[index]}: ${pc.dim(text)}`),
    ]
    const width = Math.max(20, (stream.columns ?? 80) - 1)
    stream.write(`${lines.map((line) => line.slice(0, width + 10)).join("\n")}\n`)
    drawn = lines.length
  }
  const eta = () => {
    if (computed === 0 || done === labels.length) return ""
    const left = ((performance.now() - startedMs) / computed) * todo
    return `, about ${left > 90_000 ? `${Math.ceil(left / 60_000)} min` : `${Math.ceil(left / 1000)} s`} left${later}`
  }

  return {
    stage(name, stageLabels, left) {
      title = name
      labels = stageLabels
      later = left === 0 ? "" : `, then ${left} shorter ${left === 1 ? "part" : "parts"}`
      done = computed = todo = 0
      startedMs = performance.now()
      running.clear()
      draw()
    },
    event(event) {
      if (event.type === "begin") {
        work = event.work
        todo = work.reduce((a, b) => a + b, 0)
      } else if (event.type === "progress") running.set(event.index, event.text)
      else {
        running.delete(event.index)
        done++
        todo -= work[event.index]!
        if (event.type === "done") computed += work[event.index]!
        if (!stream.isTTY) stream.write(`${title} ${done}/${labels.length}: ${labels[event.index]}${eta()}\n`)
      }
      draw()
    },
    end: erase,
  }
}
