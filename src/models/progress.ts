/** What getting a model reports while it goes on. */
export interface Progress {
  stage: "download" | "extract" | "verify" | "generate"
  /** One line for a person. */
  message: string
  doneBytes?: number
  totalBytes?: number
}
export type OnProgress = (progress: Progress) => void
