Feature: Extensions
  An extension runs tasks before and after the tasks that it extends.

  Scenario: Before and after
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    use:
      extensions:
      - log: {extend: set, before: [{b: {wait: PT1S}}], after: [{c: {wait: PT2S}}]}
    do:
    - a: {set: {x: 1}}
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    x: 1
    """
    And b should run after a
    And c should run last
    And the run should take 3 seconds

  Scenario: A condition
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    use:
      extensions:
      - log: {extend: all, when: $task.definition.metadata.logged == true, before: [{b: {wait: PT1S}}]}
    do:
    - a: {set: {x: 1}}
    - d: {set: {x: 2}, metadata: {logged: true}}
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    x: 2
    """
    And b should run 1 time

  Scenario: It answers in the task's place
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    use:
      extensions:
      - mock: {extend: call, before: [{b: {set: {from: mock}, then: exit}}]}
    do:
    - a: {call: gateway.tool, with: {tool: stock.check, arguments: {}}}
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    from: mock
    """

  Scenario: An error of the extension is the task's
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    use:
      extensions:
      - gate: {extend: set, after: [{b: {if: .x > 1, raise: {error: {type: 'urn:too-much', status: 400}}}}]}
    do:
    - a: {set: {x: 2}}
    """
    When the workflow is executed
    Then the workflow should fault with error:
    """yaml
    type: urn:too-much
    """

  Scenario: Its own tasks are not extended
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    use:
      extensions:
      - log: {extend: all, before: [{b: {set: {y: 1}}}]}
    do:
    - a: {set: {x: 1}}
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    x: 1
    """
    And b should run 1 time

  Scenario: Tasks with tasks within
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    use:
      extensions:
      - log: {extend: composite, before: [{b: {wait: PT1S}}]}
    do:
    - a: {do: [{c: {set: {x: 1}}}]}
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    x: 1
    """
    And b should run 1 time
