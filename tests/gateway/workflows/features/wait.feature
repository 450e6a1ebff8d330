Feature: Wait
  A run waits in the time of its clock, and goes on with what it had.

  Scenario: A duration in units
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - pause: {wait: {hours: 1, seconds: 30}}
    """
    And given the workflow input is:
    """yaml
    kept: 1
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    kept: 1
    """
    And the run should take 3630 seconds

  Scenario: A duration in ISO 8601
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - pause: {wait: P2DT1M}
    """
    When the workflow is executed
    Then the workflow should complete
    And the run should take 172860 seconds

  Scenario: A duration from an expression
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - pause: {wait: '${ .delay }'}
    """
    And given the workflow input is:
    """yaml
    delay: PT90S
    """
    When the workflow is executed
    Then the workflow should complete
    And the run should take 90 seconds

  Scenario: A value that is no duration
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - pause: {wait: '${ .delay }'}
    """
    And given the workflow input is:
    """yaml
    delay: soon
    """
    When the workflow is executed
    Then the workflow should fault with error:
    """yaml
    type: https://open-workflow-specification.org/spec/1.0.0/errors/expression
    instance: /do/0/pause
    """
