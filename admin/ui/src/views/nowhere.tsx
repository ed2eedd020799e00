import { place } from '../router'
import { Empty, Heading } from '../ui/basics'

export function Nowhere() {
  return (
    <>
      <Heading title="Not found" />
      <Empty title={`There is no view “${place.value.path.join('/')}”.`}><p><a href="#/">Overview</a></p></Empty>
    </>
  )
}
