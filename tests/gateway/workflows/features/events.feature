Feature: Events
  A run publishes events, and waits for those that match.

  Scenario: One event
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - hear: {listen: {to: {one: {with: {type: paid}}}}}
    """
    And given these events come:
    """yaml
    - {after: PT5S, event: {type: other, data: {n: 1}}}
    - {after: PT9S, event: {type: paid, data: {n: 2}}}
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    [{n: 2}]
    """
    And the run should take 9 seconds

  Scenario: All of them
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - hear: {listen: {to: {all: [{with: {type: a}}, {with: {type: b}}]}}}
    """
    And given these events come:
    """yaml
    - {after: PT1S, event: {type: b, data: 1}}
    - {after: PT2S, event: {type: a, data: 2}}
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    [1, 2]
    """

  Scenario: A correlation
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - hear: {listen: {to: {one: {with: {type: paid}, correlate: {order: {from: .data.order, expect: '${ .order }'}}}}}}
    """
    And given the workflow input is:
    """yaml
    order: 7
    """
    And given these events come:
    """yaml
    - {after: PT1S, event: {type: paid, data: {order: 6}}}
    - {after: PT2S, event: {type: paid, data: {order: 7}}}
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    [{order: 7}]
    """

  Scenario: Nothing comes
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - hear: {listen: {to: {one: {with: {type: paid}}}}}
    """
    When the workflow is executed
    Then the workflow should wait

  Scenario: A limit of time
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - hear: {listen: {to: {one: {with: {type: paid}}}}, timeout: {after: P1D}}
    """
    When the workflow is executed
    Then the workflow should fault with error:
    """yaml
    type: https://open-workflow-specification.org/spec/1.0.0/errors/timeout
    """
    And the run should take 86400 seconds

  Scenario: What it publishes
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - say: {emit: {event: {with: {source: 'urn:tests', type: sold, data: {n: '${ .n }'}}}}}
    """
    And given the workflow input is:
    """yaml
    n: 3
    """
    When the workflow is executed
    Then the workflow should complete
    And an event should be published:
    """yaml
    type: sold
    source: urn:tests
    data: {n: 3}
    """
