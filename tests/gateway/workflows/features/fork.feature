Feature: Fork
  Branches run at once, and their outputs keep the order of the document.

  Scenario: Every output in order
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - all:
        fork:
          branches:
          - slow: {do: [{w: {wait: PT10S}}, {a: {set: {n: 1}}}]}
          - quick: {do: [{v: {wait: PT2S}}, {b: {set: {n: 2}}}]}
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    [{n: 1}, {n: 2}]
    """
    And the run should take 10 seconds

  Scenario: The first answer wins
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - race:
        fork:
          compete: true
          branches:
          - slow: {do: [{w: {wait: PT10S}}, {a: {set: {n: 1}}}]}
          - quick: {do: [{v: {wait: PT2S}}, {b: {set: {n: 2}}}]}
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    n: 2
    """
    And a should not run
    And the run should take 2 seconds

  Scenario: A branch that fails ends the others
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - all:
        fork:
          branches:
          - slow: {do: [{w: {wait: PT10S}}, {a: {set: {n: 1}}}]}
          - bad: {raise: {error: {type: 'urn:x', status: 500}}}
    """
    When the workflow is executed
    Then the workflow should fault with error:
    """yaml
    type: urn:x
    instance: /do/0/all/fork/branches/1/bad
    """
    And a should not run

  Scenario: A competitor that fails has lost
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - race:
        fork:
          compete: true
          branches:
          - bad: {raise: {error: {type: 'urn:x', status: 500}}}
          - good: {do: [{w: {wait: PT1S}}, {a: {set: {n: 1}}}]}
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    n: 1
    """

  Scenario: Every branch has the same input
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - all:
        fork:
          branches:
          - one: {set: {x: '${ .n + 1 }'}}
          - two: {set: {x: '${ .n + 2 }'}}
    """
    And given the workflow input is:
    """yaml
    n: 1
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    [{x: 2}, {x: 3}]
    """
