from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from container_manager.client.transport import Transport

from .apply_hosts import ApplyHosts
from .cancel_job import CancelJob
from .create_host import CreateHost
from .declare_host_lost import DeclareHostLost
from .delete_host import DeleteHost
from .drain_host import DrainHost
from .enums import HostOrder, JobOrder
from .event_cursor import EventCursor
from .events import Events
from .events_after import EventsAfter
from .explain import Explain
from .host import Host
from .hosts import Hosts
from .input_types import (
    HostAssumption,
    HostFilter,
    HostInput,
    HostPatch,
    JobFilter,
    JobInput,
    RoutingEventFilter,
)
from .job import Job
from .job_state import JobState
from .jobs import Jobs
from .live_logs import LiveLogs
from .overview import Overview
from .plan import Plan
from .queue import Queue
from .resume_host import ResumeHost
from .retry_job import RetryJob
from .stored_events import StoredEvents
from .stored_logs import StoredLogs
from .submit_job import SubmitJob
from .submit_jobs import SubmitJobs
from .update_host import UpdateHost
from .viewer import Viewer
from .why_not import WhyNot


def gql(q: str) -> str:
    return q


class Operations(Transport):
    async def viewer(self, **kwargs: Any) -> Viewer:
        query = gql("""
            query Viewer {
              viewer {
                name
                role
                expiresAt
              }
            }
            """)
        variables: dict[str, object] = {}
        response = await self.execute(query=query, operation_name="Viewer", variables=variables, **kwargs)
        data = self.get_data(response)
        return Viewer.model_validate(data)

    async def submit_job(self, input: JobInput, **kwargs: Any) -> SubmitJob:
        query = gql("""
            mutation SubmitJob($input: JobInput!) {
              submitJob(input: $input) {
                __typename
                ... on ContainerJob {
                  ...JobFields
                }
                ... on UserError {
                  message
                }
                ... on ValidationFailed {
                  fields {
                    field
                    message
                    reason
                  }
                }
                ... on Conflict {
                  field
                }
              }
            }

            fragment JobFields on ContainerJob {
              id
              name
              image
              status
              labels
              attempt
              maxAttempts
              priority
              exitCode
              failure
              error
              message
              routingReason
              executionId
              executorType
              submittedBy
              cancelledBy
              submittedAt
              queuedAt
              routedAt
              launchedAt
              startedAt
              finishedAt
              queuedSeconds
              runSeconds
              host {
                id
                name
              }
              waitingOn {
                ...Refusal
              }
            }

            fragment Refusal on RoutingRefused {
              message
              verdict
              rejections {
                code
                hosts
              }
              suggestions {
                message
                hosts
              }
            }
            """)
        variables: dict[str, object] = {"input": input}
        response = await self.execute(query=query, operation_name="SubmitJob", variables=variables, **kwargs)
        data = self.get_data(response)
        return SubmitJob.model_validate(data)

    async def submit_jobs(self, inputs: list[JobInput], **kwargs: Any) -> SubmitJobs:
        query = gql("""
            mutation SubmitJobs($inputs: [JobInput!]!) {
              submitJobs(inputs: $inputs) {
                __typename
                ... on ContainerJob {
                  ...JobFields
                }
                ... on UserError {
                  message
                }
                ... on ValidationFailed {
                  fields {
                    field
                    message
                    reason
                  }
                }
                ... on Conflict {
                  field
                }
              }
            }

            fragment JobFields on ContainerJob {
              id
              name
              image
              status
              labels
              attempt
              maxAttempts
              priority
              exitCode
              failure
              error
              message
              routingReason
              executionId
              executorType
              submittedBy
              cancelledBy
              submittedAt
              queuedAt
              routedAt
              launchedAt
              startedAt
              finishedAt
              queuedSeconds
              runSeconds
              host {
                id
                name
              }
              waitingOn {
                ...Refusal
              }
            }

            fragment Refusal on RoutingRefused {
              message
              verdict
              rejections {
                code
                hosts
              }
              suggestions {
                message
                hosts
              }
            }
            """)
        variables: dict[str, object] = {"inputs": inputs}
        response = await self.execute(query=query, operation_name="SubmitJobs", variables=variables, **kwargs)
        data = self.get_data(response)
        return SubmitJobs.model_validate(data)

    async def cancel_job(self, id: str, **kwargs: Any) -> CancelJob:
        query = gql("""
            mutation CancelJob($id: ID!) {
              cancelJob(id: $id) {
                __typename
                ... on ContainerJob {
                  ...JobFields
                }
                ... on UserError {
                  message
                }
                ... on Conflict {
                  field
                }
              }
            }

            fragment JobFields on ContainerJob {
              id
              name
              image
              status
              labels
              attempt
              maxAttempts
              priority
              exitCode
              failure
              error
              message
              routingReason
              executionId
              executorType
              submittedBy
              cancelledBy
              submittedAt
              queuedAt
              routedAt
              launchedAt
              startedAt
              finishedAt
              queuedSeconds
              runSeconds
              host {
                id
                name
              }
              waitingOn {
                ...Refusal
              }
            }

            fragment Refusal on RoutingRefused {
              message
              verdict
              rejections {
                code
                hosts
              }
              suggestions {
                message
                hosts
              }
            }
            """)
        variables: dict[str, object] = {"id": id}
        response = await self.execute(query=query, operation_name="CancelJob", variables=variables, **kwargs)
        data = self.get_data(response)
        return CancelJob.model_validate(data)

    async def retry_job(self, id: str, **kwargs: Any) -> RetryJob:
        query = gql("""
            mutation RetryJob($id: ID!) {
              retryJob(id: $id) {
                __typename
                ... on ContainerJob {
                  ...JobFields
                }
                ... on UserError {
                  message
                }
                ... on Conflict {
                  field
                }
              }
            }

            fragment JobFields on ContainerJob {
              id
              name
              image
              status
              labels
              attempt
              maxAttempts
              priority
              exitCode
              failure
              error
              message
              routingReason
              executionId
              executorType
              submittedBy
              cancelledBy
              submittedAt
              queuedAt
              routedAt
              launchedAt
              startedAt
              finishedAt
              queuedSeconds
              runSeconds
              host {
                id
                name
              }
              waitingOn {
                ...Refusal
              }
            }

            fragment Refusal on RoutingRefused {
              message
              verdict
              rejections {
                code
                hosts
              }
              suggestions {
                message
                hosts
              }
            }
            """)
        variables: dict[str, object] = {"id": id}
        response = await self.execute(query=query, operation_name="RetryJob", variables=variables, **kwargs)
        data = self.get_data(response)
        return RetryJob.model_validate(data)

    async def jobs(
        self,
        order_by: JobOrder,
        first: int,
        filters: JobFilter | None = None,
        after: str | None = None,
        **kwargs: Any,
    ) -> Jobs:
        query = gql("""
            query Jobs($filters: JobFilter, $orderBy: JobOrder!, $first: Int!, $after: String) {
              jobs(filters: $filters, orderBy: $orderBy, first: $first, after: $after) {
                edges {
                  node {
                    ...JobFields
                  }
                }
                pageInfo {
                  hasNextPage
                  endCursor
                }
              }
            }

            fragment JobFields on ContainerJob {
              id
              name
              image
              status
              labels
              attempt
              maxAttempts
              priority
              exitCode
              failure
              error
              message
              routingReason
              executionId
              executorType
              submittedBy
              cancelledBy
              submittedAt
              queuedAt
              routedAt
              launchedAt
              startedAt
              finishedAt
              queuedSeconds
              runSeconds
              host {
                id
                name
              }
              waitingOn {
                ...Refusal
              }
            }

            fragment Refusal on RoutingRefused {
              message
              verdict
              rejections {
                code
                hosts
              }
              suggestions {
                message
                hosts
              }
            }
            """)
        variables: dict[str, object] = {
            "filters": filters,
            "orderBy": order_by,
            "first": first,
            "after": after,
        }
        response = await self.execute(query=query, operation_name="Jobs", variables=variables, **kwargs)
        data = self.get_data(response)
        return Jobs.model_validate(data)

    async def job(self, id: str, **kwargs: Any) -> Job:
        query = gql("""
            query Job($id: ID!) {
              job(id: $id) {
                ...JobDetails
              }
            }

            fragment JobDetails on ContainerJob {
              ...JobFields
              command
              entryPoint
              environmentNames
              workingDir
              user
              network
              readOnlyRoot
              shmSizeMb
              tmpfs
              memoryLimitMb
              cpuLimit
              timeoutSeconds
              preferredExecutor
              executorRequired
              regionPreference
              regionRequired
              hostSelector
              strategy
              queueTimeoutSeconds
              notBefore
              cancelRequestedAt
              reservedHost {
                id
                name
              }
              attempts {
                attempt
                status
                hostName
                executionId
                exitCode
                error
                failure
                queuedAt
                routedAt
                launchedAt
                startedAt
                finishedAt
              }
            }

            fragment JobFields on ContainerJob {
              id
              name
              image
              status
              labels
              attempt
              maxAttempts
              priority
              exitCode
              failure
              error
              message
              routingReason
              executionId
              executorType
              submittedBy
              cancelledBy
              submittedAt
              queuedAt
              routedAt
              launchedAt
              startedAt
              finishedAt
              queuedSeconds
              runSeconds
              host {
                id
                name
              }
              waitingOn {
                ...Refusal
              }
            }

            fragment Refusal on RoutingRefused {
              message
              verdict
              rejections {
                code
                hosts
              }
              suggestions {
                message
                hosts
              }
            }
            """)
        variables: dict[str, object] = {"id": id}
        response = await self.execute(query=query, operation_name="Job", variables=variables, **kwargs)
        data = self.get_data(response)
        return Job.model_validate(data)

    async def job_state(self, id: str, **kwargs: Any) -> JobState:
        query = gql("""
            query JobState($id: ID!) {
              job(id: $id) {
                ...JobFields
              }
            }

            fragment JobFields on ContainerJob {
              id
              name
              image
              status
              labels
              attempt
              maxAttempts
              priority
              exitCode
              failure
              error
              message
              routingReason
              executionId
              executorType
              submittedBy
              cancelledBy
              submittedAt
              queuedAt
              routedAt
              launchedAt
              startedAt
              finishedAt
              queuedSeconds
              runSeconds
              host {
                id
                name
              }
              waitingOn {
                ...Refusal
              }
            }

            fragment Refusal on RoutingRefused {
              message
              verdict
              rejections {
                code
                hosts
              }
              suggestions {
                message
                hosts
              }
            }
            """)
        variables: dict[str, object] = {"id": id}
        response = await self.execute(query=query, operation_name="JobState", variables=variables, **kwargs)
        data = self.get_data(response)
        return JobState.model_validate(data)

    async def explain(self, id: str, hosts: int, **kwargs: Any) -> Explain:
        query = gql("""
            query Explain($id: ID!, $hosts: Int!) {
              job(id: $id) {
                id
                name
                status
                waitingOn {
                  ...Refusal
                }
                decisions {
                  ...DecisionFields
                  hosts(first: $hosts) {
                    edges {
                      node {
                        ...HostChecks
                      }
                    }
                    pageInfo {
                      hasNextPage
                    }
                  }
                }
              }
            }

            fragment CheckFields on CheckResult {
              code
              passed
              verdict
              needed
              available
              message
            }

            fragment DecisionFields on RoutingDecision {
              id
              attempt
              executorType
              strategy
              reason
              decidedAt
              replay
              rejections {
                code
                hosts
              }
              host {
                id
                name
              }
            }

            fragment HostChecks on HostVerdict {
              hostName
              verdict
              weight
              chosen
              checks {
                ...CheckFields
              }
            }

            fragment Refusal on RoutingRefused {
              message
              verdict
              rejections {
                code
                hosts
              }
              suggestions {
                message
                hosts
              }
            }
            """)
        variables: dict[str, object] = {"id": id, "hosts": hosts}
        response = await self.execute(query=query, operation_name="Explain", variables=variables, **kwargs)
        data = self.get_data(response)
        return Explain.model_validate(data)

    async def why_not(self, job_id: str, host_id: str, **kwargs: Any) -> WhyNot:
        query = gql("""
            query WhyNot($jobId: ID!, $hostId: ID!) {
              whyNot(jobId: $jobId, hostId: $hostId) {
                ...HostChecks
              }
            }

            fragment CheckFields on CheckResult {
              code
              passed
              verdict
              needed
              available
              message
            }

            fragment HostChecks on HostVerdict {
              hostName
              verdict
              weight
              chosen
              checks {
                ...CheckFields
              }
            }
            """)
        variables: dict[str, object] = {"jobId": job_id, "hostId": host_id}
        response = await self.execute(query=query, operation_name="WhyNot", variables=variables, **kwargs)
        data = self.get_data(response)
        return WhyNot.model_validate(data)

    async def stored_logs(
        self,
        id: str,
        first: int,
        after: str | None = None,
        **kwargs: Any,
    ) -> StoredLogs:
        query = gql("""
            query StoredLogs($id: ID!, $first: Int!, $after: String) {
              job(id: $id) {
                logs(first: $first, after: $after) {
                  edges {
                    node {
                      cursor
                      stream
                      at
                      text
                    }
                  }
                  pageInfo {
                    hasNextPage
                    endCursor
                  }
                }
              }
            }
            """)
        variables: dict[str, object] = {"id": id, "first": first, "after": after}
        response = await self.execute(query=query, operation_name="StoredLogs", variables=variables, **kwargs)
        data = self.get_data(response)
        return StoredLogs.model_validate(data)

    async def live_logs(self, id: str, after: str | None = None, **kwargs: Any) -> AsyncGenerator[LiveLogs, None]:
        query = gql("""
            subscription LiveLogs($id: ID!, $after: String) {
              jobLogs(id: $id, after: $after) {
                cursor
                stream
                at
                text
              }
            }
            """)
        variables: dict[str, object] = {"id": id, "after": after}
        async with aclosing(
            self.execute_ws(query=query, operation_name="LiveLogs", variables=variables, **kwargs)
        ) as values:
            async for data in values:
                yield LiveLogs.model_validate(data)

    async def plan(
        self,
        jobs: list[JobInput],
        assume: list[HostAssumption] | None = None,
        add_hosts: list[HostInput] | None = None,
        **kwargs: Any,
    ) -> Plan:
        query = gql("""
            query Plan($jobs: [JobInput!]!, $assume: [HostAssumption!], $addHosts: [HostInput!]) {
              planRouting(jobs: $jobs, assume: $assume, addHosts: $addHosts) {
                waitingPlaced
                waiting(first: 100) {
                  hostName
                  job {
                    id
                    name
                    image
                  }
                }
                placements {
                  __typename
                  ... on Placement {
                    reason
                    hostName
                  }
                  ... on UserError {
                    message
                  }
                  ... on RoutingRefused {
                    verdict
                    rejections {
                      code
                      hosts
                    }
                    suggestions {
                      message
                      hosts
                    }
                  }
                  ... on ValidationFailed {
                    fields {
                      field
                      message
                      reason
                    }
                  }
                }
              }
            }
            """)
        variables: dict[str, object] = {
            "jobs": jobs,
            "assume": assume,
            "addHosts": add_hosts,
        }
        response = await self.execute(query=query, operation_name="Plan", variables=variables, **kwargs)
        data = self.get_data(response)
        return Plan.model_validate(data)

    async def queue(self, **kwargs: Any) -> Queue:
        query = gql("""
            query Queue {
              queue {
                pending
                active
                oldestSubmittedAt
                groups {
                  verdict
                  jobs
                  oldestSubmittedAt
                  rejections {
                    code
                    hosts
                  }
                }
              }
            }
            """)
        variables: dict[str, object] = {}
        response = await self.execute(query=query, operation_name="Queue", variables=variables, **kwargs)
        data = self.get_data(response)
        return Queue.model_validate(data)

    async def hosts(
        self,
        order_by: HostOrder,
        first: int,
        filters: HostFilter | None = None,
        after: str | None = None,
        **kwargs: Any,
    ) -> Hosts:
        query = gql("""
            query Hosts($filters: HostFilter, $orderBy: HostOrder!, $first: Int!, $after: String) {
              hosts(filters: $filters, orderBy: $orderBy, first: $first, after: $after) {
                edges {
                  node {
                    ...HostFields
                  }
                }
                pageInfo {
                  hasNextPage
                  endCursor
                }
              }
            }

            fragment HostFields on ExecutorHost {
              id
              name
              executorType
              region
              routingWeight
              isActive
              isDraining
              emptySince
              ejectedUntil
              cooldownUntil
              engine
              createdAt
              labels
              config
              health {
                status
                latencyMs
                error
                lastCheckedAt
                consecutiveFailures
              }
              capacity {
                maxConcurrentJobs
                runningJobs
                availableSlots
                maxMemoryMb
                reservedMemoryMb
                maxCpuCores
                reservedCpuCores
              }
            }
            """)
        variables: dict[str, object] = {
            "filters": filters,
            "orderBy": order_by,
            "first": first,
            "after": after,
        }
        response = await self.execute(query=query, operation_name="Hosts", variables=variables, **kwargs)
        data = self.get_data(response)
        return Hosts.model_validate(data)

    async def host(self, name: str, **kwargs: Any) -> Host:
        query = gql("""
            query Host($name: String!) {
              host(name: $name) {
                ...HostFields
              }
            }

            fragment HostFields on ExecutorHost {
              id
              name
              executorType
              region
              routingWeight
              isActive
              isDraining
              emptySince
              ejectedUntil
              cooldownUntil
              engine
              createdAt
              labels
              config
              health {
                status
                latencyMs
                error
                lastCheckedAt
                consecutiveFailures
              }
              capacity {
                maxConcurrentJobs
                runningJobs
                availableSlots
                maxMemoryMb
                reservedMemoryMb
                maxCpuCores
                reservedCpuCores
              }
            }
            """)
        variables: dict[str, object] = {"name": name}
        response = await self.execute(query=query, operation_name="Host", variables=variables, **kwargs)
        data = self.get_data(response)
        return Host.model_validate(data)

    async def create_host(self, input: HostInput, **kwargs: Any) -> CreateHost:
        query = gql("""
            mutation CreateHost($input: HostInput!) {
              createHost(input: $input) {
                ...HostOutcome
              }
            }

            fragment HostFields on ExecutorHost {
              id
              name
              executorType
              region
              routingWeight
              isActive
              isDraining
              emptySince
              ejectedUntil
              cooldownUntil
              engine
              createdAt
              labels
              config
              health {
                status
                latencyMs
                error
                lastCheckedAt
                consecutiveFailures
              }
              capacity {
                maxConcurrentJobs
                runningJobs
                availableSlots
                maxMemoryMb
                reservedMemoryMb
                maxCpuCores
                reservedCpuCores
              }
            }

            fragment HostOutcome on HostResult {
              __typename
              ... on ExecutorHost {
                ...HostFields
              }
              ... on UserError {
                message
              }
              ... on ValidationFailed {
                fields {
                  field
                  message
                  reason
                }
              }
              ... on Conflict {
                field
              }
            }
            """)
        variables: dict[str, object] = {"input": input}
        response = await self.execute(query=query, operation_name="CreateHost", variables=variables, **kwargs)
        data = self.get_data(response)
        return CreateHost.model_validate(data)

    async def update_host(self, id: str, input: HostPatch, **kwargs: Any) -> UpdateHost:
        query = gql("""
            mutation UpdateHost($id: ID!, $input: HostPatch!) {
              updateHost(id: $id, input: $input) {
                ...HostOutcome
              }
            }

            fragment HostFields on ExecutorHost {
              id
              name
              executorType
              region
              routingWeight
              isActive
              isDraining
              emptySince
              ejectedUntil
              cooldownUntil
              engine
              createdAt
              labels
              config
              health {
                status
                latencyMs
                error
                lastCheckedAt
                consecutiveFailures
              }
              capacity {
                maxConcurrentJobs
                runningJobs
                availableSlots
                maxMemoryMb
                reservedMemoryMb
                maxCpuCores
                reservedCpuCores
              }
            }

            fragment HostOutcome on HostResult {
              __typename
              ... on ExecutorHost {
                ...HostFields
              }
              ... on UserError {
                message
              }
              ... on ValidationFailed {
                fields {
                  field
                  message
                  reason
                }
              }
              ... on Conflict {
                field
              }
            }
            """)
        variables: dict[str, object] = {"id": id, "input": input}
        response = await self.execute(query=query, operation_name="UpdateHost", variables=variables, **kwargs)
        data = self.get_data(response)
        return UpdateHost.model_validate(data)

    async def drain_host(self, id: str, **kwargs: Any) -> DrainHost:
        query = gql("""
            mutation DrainHost($id: ID!) {
              drainHost(id: $id) {
                ...HostOutcome
              }
            }

            fragment HostFields on ExecutorHost {
              id
              name
              executorType
              region
              routingWeight
              isActive
              isDraining
              emptySince
              ejectedUntil
              cooldownUntil
              engine
              createdAt
              labels
              config
              health {
                status
                latencyMs
                error
                lastCheckedAt
                consecutiveFailures
              }
              capacity {
                maxConcurrentJobs
                runningJobs
                availableSlots
                maxMemoryMb
                reservedMemoryMb
                maxCpuCores
                reservedCpuCores
              }
            }

            fragment HostOutcome on HostResult {
              __typename
              ... on ExecutorHost {
                ...HostFields
              }
              ... on UserError {
                message
              }
              ... on ValidationFailed {
                fields {
                  field
                  message
                  reason
                }
              }
              ... on Conflict {
                field
              }
            }
            """)
        variables: dict[str, object] = {"id": id}
        response = await self.execute(query=query, operation_name="DrainHost", variables=variables, **kwargs)
        data = self.get_data(response)
        return DrainHost.model_validate(data)

    async def resume_host(self, id: str, **kwargs: Any) -> ResumeHost:
        query = gql("""
            mutation ResumeHost($id: ID!) {
              resumeHost(id: $id) {
                ...HostOutcome
              }
            }

            fragment HostFields on ExecutorHost {
              id
              name
              executorType
              region
              routingWeight
              isActive
              isDraining
              emptySince
              ejectedUntil
              cooldownUntil
              engine
              createdAt
              labels
              config
              health {
                status
                latencyMs
                error
                lastCheckedAt
                consecutiveFailures
              }
              capacity {
                maxConcurrentJobs
                runningJobs
                availableSlots
                maxMemoryMb
                reservedMemoryMb
                maxCpuCores
                reservedCpuCores
              }
            }

            fragment HostOutcome on HostResult {
              __typename
              ... on ExecutorHost {
                ...HostFields
              }
              ... on UserError {
                message
              }
              ... on ValidationFailed {
                fields {
                  field
                  message
                  reason
                }
              }
              ... on Conflict {
                field
              }
            }
            """)
        variables: dict[str, object] = {"id": id}
        response = await self.execute(query=query, operation_name="ResumeHost", variables=variables, **kwargs)
        data = self.get_data(response)
        return ResumeHost.model_validate(data)

    async def delete_host(self, id: str, **kwargs: Any) -> DeleteHost:
        query = gql("""
            mutation DeleteHost($id: ID!) {
              deleteHost(id: $id) {
                ...HostOutcome
              }
            }

            fragment HostFields on ExecutorHost {
              id
              name
              executorType
              region
              routingWeight
              isActive
              isDraining
              emptySince
              ejectedUntil
              cooldownUntil
              engine
              createdAt
              labels
              config
              health {
                status
                latencyMs
                error
                lastCheckedAt
                consecutiveFailures
              }
              capacity {
                maxConcurrentJobs
                runningJobs
                availableSlots
                maxMemoryMb
                reservedMemoryMb
                maxCpuCores
                reservedCpuCores
              }
            }

            fragment HostOutcome on HostResult {
              __typename
              ... on ExecutorHost {
                ...HostFields
              }
              ... on UserError {
                message
              }
              ... on ValidationFailed {
                fields {
                  field
                  message
                  reason
                }
              }
              ... on Conflict {
                field
              }
            }
            """)
        variables: dict[str, object] = {"id": id}
        response = await self.execute(query=query, operation_name="DeleteHost", variables=variables, **kwargs)
        data = self.get_data(response)
        return DeleteHost.model_validate(data)

    async def declare_host_lost(self, id: str, **kwargs: Any) -> DeclareHostLost:
        query = gql("""
            mutation DeclareHostLost($id: ID!) {
              declareHostLost(id: $id) {
                ...HostOutcome
              }
            }

            fragment HostFields on ExecutorHost {
              id
              name
              executorType
              region
              routingWeight
              isActive
              isDraining
              emptySince
              ejectedUntil
              cooldownUntil
              engine
              createdAt
              labels
              config
              health {
                status
                latencyMs
                error
                lastCheckedAt
                consecutiveFailures
              }
              capacity {
                maxConcurrentJobs
                runningJobs
                availableSlots
                maxMemoryMb
                reservedMemoryMb
                maxCpuCores
                reservedCpuCores
              }
            }

            fragment HostOutcome on HostResult {
              __typename
              ... on ExecutorHost {
                ...HostFields
              }
              ... on UserError {
                message
              }
              ... on ValidationFailed {
                fields {
                  field
                  message
                  reason
                }
              }
              ... on Conflict {
                field
              }
            }
            """)
        variables: dict[str, object] = {"id": id}
        response = await self.execute(query=query, operation_name="DeclareHostLost", variables=variables, **kwargs)
        data = self.get_data(response)
        return DeclareHostLost.model_validate(data)

    async def apply_hosts(self, inputs: list[HostInput], dry_run: bool, **kwargs: Any) -> ApplyHosts:
        query = gql("""
            mutation ApplyHosts($inputs: [HostInput!]!, $dryRun: Boolean!) {
              applyHosts(inputs: $inputs, dryRun: $dryRun) {
                name
                change
                difference
                result {
                  __typename
                  ... on ExecutorHost {
                    id
                    health {
                      status
                      error
                    }
                  }
                  ... on UserError {
                    message
                  }
                  ... on ValidationFailed {
                    fields {
                      field
                      message
                      reason
                    }
                  }
                  ... on Conflict {
                    field
                  }
                }
              }
            }
            """)
        variables: dict[str, object] = {"inputs": inputs, "dryRun": dry_run}
        response = await self.execute(query=query, operation_name="ApplyHosts", variables=variables, **kwargs)
        data = self.get_data(response)
        return ApplyHosts.model_validate(data)

    async def overview(self, **kwargs: Any) -> Overview:
        query = gql("""
            query Overview {
              jobStats {
                unfinished {
                  pending
                  routed
                  launching
                  running
                }
                total {
                  submitted
                  succeeded
                  failed
                  timedOut
                  cancelled
                  queueTime {
                    p50
                    p95
                  }
                  runTime {
                    p50
                    p95
                  }
                }
              }
              queue {
                pending
                active
                groups {
                  verdict
                  jobs
                  oldestSubmittedAt
                  rejections {
                    code
                    hosts
                  }
                }
              }
              hosts(first: 1000, orderBy: NAME) {
                edges {
                  node {
                    ...HostFields
                  }
                }
                pageInfo {
                  hasNextPage
                  endCursor
                }
              }
              routingEvents(last: 20) {
                edges {
                  node {
                    cursor
                    kind
                    at
                    message
                    hostName
                  }
                }
              }
            }

            fragment HostFields on ExecutorHost {
              id
              name
              executorType
              region
              routingWeight
              isActive
              isDraining
              emptySince
              ejectedUntil
              cooldownUntil
              engine
              createdAt
              labels
              config
              health {
                status
                latencyMs
                error
                lastCheckedAt
                consecutiveFailures
              }
              capacity {
                maxConcurrentJobs
                runningJobs
                availableSlots
                maxMemoryMb
                reservedMemoryMb
                maxCpuCores
                reservedCpuCores
              }
            }
            """)
        variables: dict[str, object] = {}
        response = await self.execute(query=query, operation_name="Overview", variables=variables, **kwargs)
        data = self.get_data(response)
        return Overview.model_validate(data)

    async def event_cursor(self, **kwargs: Any) -> EventCursor:
        query = gql("""
            query EventCursor {
              eventCursor
            }
            """)
        variables: dict[str, object] = {}
        response = await self.execute(query=query, operation_name="EventCursor", variables=variables, **kwargs)
        data = self.get_data(response)
        return EventCursor.model_validate(data)

    async def stored_events(
        self,
        last: int,
        filters: RoutingEventFilter | None = None,
        **kwargs: Any,
    ) -> StoredEvents:
        query = gql("""
            query StoredEvents($last: Int!, $filters: RoutingEventFilter) {
              routingEvents(last: $last, filters: $filters) {
                edges {
                  node {
                    ...EventFields
                  }
                }
              }
            }

            fragment EventFields on RoutingEvent {
              cursor
              kind
              at
              message
              attempt
              actor
              hostName
              job {
                id
                name
                image
                status
              }
              host {
                id
                name
              }
            }
            """)
        variables: dict[str, object] = {"last": last, "filters": filters}
        response = await self.execute(query=query, operation_name="StoredEvents", variables=variables, **kwargs)
        data = self.get_data(response)
        return StoredEvents.model_validate(data)

    async def events_after(
        self,
        after: str,
        first: int,
        filters: RoutingEventFilter | None = None,
        **kwargs: Any,
    ) -> EventsAfter:
        query = gql("""
            query EventsAfter($after: String!, $first: Int!, $filters: RoutingEventFilter) {
              routingEvents(after: $after, first: $first, filters: $filters) {
                edges {
                  node {
                    ...EventFields
                  }
                }
                pageInfo {
                  hasNextPage
                  endCursor
                }
              }
            }

            fragment EventFields on RoutingEvent {
              cursor
              kind
              at
              message
              attempt
              actor
              hostName
              job {
                id
                name
                image
                status
              }
              host {
                id
                name
              }
            }
            """)
        variables: dict[str, object] = {
            "after": after,
            "first": first,
            "filters": filters,
        }
        response = await self.execute(query=query, operation_name="EventsAfter", variables=variables, **kwargs)
        data = self.get_data(response)
        return EventsAfter.model_validate(data)

    async def events(
        self,
        after: str | None = None,
        filters: RoutingEventFilter | None = None,
        **kwargs: Any,
    ) -> AsyncGenerator[Events, None]:
        query = gql("""
            subscription Events($after: String, $filters: RoutingEventFilter) {
              routingEvents(after: $after, filters: $filters) {
                ...EventFields
              }
            }

            fragment EventFields on RoutingEvent {
              cursor
              kind
              at
              message
              attempt
              actor
              hostName
              job {
                id
                name
                image
                status
              }
              host {
                id
                name
              }
            }
            """)
        variables: dict[str, object] = {"after": after, "filters": filters}
        async with aclosing(
            self.execute_ws(query=query, operation_name="Events", variables=variables, **kwargs)
        ) as values:
            async for data in values:
                yield Events.model_validate(data)
