Feature: Run another workflow
  A workflow is a step of another one.

  Scenario: Its output is the step's
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - sub: {run: {workflow: {namespace: tests, name: inner, version: latest, input: {n: '${ .n }'}}}}
    - after: {set: {seen: '${ .m }'}}
    """
    And given the workflow input is:
    """yaml
    n: 1
    """
    And given the answers of steps are:
    """yaml
    sub: {output: {m: 2}}
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    seen: 2
    """

  Scenario: Its error is the step's
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - sub: {run: {workflow: {namespace: tests, name: inner, version: latest}}}
    """
    And given the answers of steps are:
    """yaml
    sub: {error: {type: 'urn:x', status: 500}}
    """
    When the workflow is executed
    Then the workflow should fault with error:
    """yaml
    type: urn:x
    instance: /do/0/sub
    """

  Scenario: Its output is not wanted
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - sub: {run: {workflow: {namespace: tests, name: inner, version: latest}, return: none}}
    """
    And given the workflow input is:
    """yaml
    n: 1
    """
    And given the answers of steps are:
    """yaml
    sub: {output: {m: 2}}
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    n: 1
    """

  Scenario: A shell command is refused
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - sub: {run: {shell: {command: ls}}}
    """
    When the workflow is executed
    Then the document should be refused at '/do/0/sub/run'

  Scenario: A script is refused
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - sub: {run: {script: {language: python, code: '1'}}}
    """
    When the workflow is executed
    Then the document should be refused at '/do/0/sub/run'

  Scenario: A container is refused
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - sub: {run: {container: {image: alpine}}}
    """
    When the workflow is executed
    Then the document should be refused at '/do/0/sub/run'
