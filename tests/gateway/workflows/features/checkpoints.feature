Feature: Checkpoints
  People approve, choose and fill in forms, and the run waits for them.

  Scenario: An approval
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - ask: {call: gateway.approve, with: {prompt: '${ "Pay \(.total)?" }'}}
    """
    And given the workflow input is:
    """yaml
    total: 5
    """
    And given the answers of steps are:
    """yaml
    ask: {output: {approved: true}, after: P9D}
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    approved: true
    """
    And ask should call gateway.approve with:
    """yaml
    prompt: Pay 5?
    """
    And the run should take 777600 seconds

  Scenario: A denial undoes what was done
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    use:
      functions:
        undo: {emit: {event: {with: {source: 'urn:tests', type: undone, data: {key: '${ .output.key }'}}}}}
    do:
    - reserve: {call: gateway.tool, with: {tool: stock.reserve, arguments: {}}, metadata: {gateway: {compensate: undo}}}
    - ask: {call: gateway.approve, with: {prompt: 'Go on?'}}
    """
    And given the answers of steps are:
    """yaml
    reserve: {output: {key: r1}}
    ask: {error: {type: 'urn:interlock:error:denied', status: 403}}
    """
    When the workflow is executed
    Then the workflow should fault with error:
    """yaml
    type: urn:interlock:error:denied
    """
    And an event should be published:
    """yaml
    type: undone
    data: {key: r1}
    """

  Scenario: A choice
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - ask: {call: gateway.choose, with: {prompt: 'Which?', options: [small, large]}}
    - which: {switch: [{big: {when: '. == "large"', then: grow}}, {else: {then: end}}]}
    - grow: {set: {size: 9}}
    """
    And given the answers of steps are:
    """yaml
    ask: {output: large}
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    size: 9
    """

  Scenario: A form
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - ask: {call: gateway.form, with: {prompt: 'Who?', schema: {type: object, required: [name]}}}
    """
    And given the answers of steps are:
    """yaml
    ask: {output: {name: Ann}}
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    name: Ann
    """
